#include "distributed/context_group.h"

#include "core/error.h"

namespace longreach {

ContextGroup::ContextGroup(Group ranks, SequenceLayout layout, ContextMethod method,
                           const std::vector<HeadGroup>& heads)
    : ranks_(std::move(ranks)), layout_(std::move(layout)), pieces_(layout_.pieces(rank())), method_(method) {
  check<ShapeError>(size_of(ranks_) == layout_.ranks(), "a layout over ", layout_.ranks(),
                    " ranks for a group of ", size_of(ranks_));
  for (const HeadGroup& group : heads)
    shared_heads_.push_back({group.neighbours, std::make_shared<const ContextGroup>(
                                                   group.across, layout_.merged(group.neighbours->size()))});
}

BlockChoices ContextGroup::all_choices() const {
  BlockChoices all = choices_;
  for (const SharedHeads& shared : shared_heads_) {
    all.earlier += shared.tokens->choices().earlier;
    all.chosen += shared.tokens->choices().chosen;
  }
  return all;
}

}  // namespace longreach
