// The ranks that share one sequence, and which of them owns which of its tokens: what a batch carries under
// context parallelism.
#pragma once
#include <utility>
#include <vector>

#include "distributed/communicator.h"
#include "distributed/sequence_layout.h"

namespace longreach {

class ContextGroup {
 public:
  // ranks: as many as the layout has.
  ContextGroup(Group ranks, SequenceLayout layout)
      : ranks_(std::move(ranks)), layout_(std::move(layout)), pieces_(layout_.pieces(rank())) {}

  Communicator& ranks() const { return *ranks_; }
  int rank() const { return ranks_->rank(); }
  const SequenceLayout& layout() const { return layout_; }
  // Of this rank.
  const std::vector<Piece>& pieces() const { return pieces_; }
  int64_t tokens() const { return layout_.tokens(rank()); }

 private:
  Group ranks_;
  SequenceLayout layout_;
  std::vector<Piece> pieces_;
};

}  // namespace longreach
