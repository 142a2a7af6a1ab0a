// The ranks that share one sequence, and which of them owns which of its tokens: what a batch carries under
// context parallelism.
#pragma once
#include <memory>
#include <utility>
#include <vector>

#include "distributed/communicator.h"
#include "distributed/sequence_layout.h"

namespace longreach {

class ContextGroup;

// Some neighbouring ranks of a group that may share out a layer's heads: each then has all their tokens for
// some of the heads.
struct HeadGroup {
  Group neighbours;
  Group across;  // this rank and those with its number among other neighbours; null: there are no others
};

struct SharedHeads {
  Group neighbours;
  std::shared_ptr<const ContextGroup> tokens;  // the row as `across` shares it
};

// Which way a layer goes: keys are fetched; heads are shared out among all ranks; or, layer by layer, among
// so many neighbours, or none, that the fewest bytes are planned.
enum class ContextMethod { fetch, heads, automatic };

// Of the blocks before its pieces, how many a rank could have read, and how many somebody on it chose.
struct BlockChoices {
  int64_t earlier = 0, chosen = 0;
};

class ContextGroup {
 public:
  // ranks: as many as the layout has; null: this one alone. heads: ways to share out heads, by rising numbers
  // of neighbours; none: keys are fetched.
  ContextGroup(Group ranks, SequenceLayout layout, ContextMethod method = ContextMethod::fetch,
               const std::vector<HeadGroup>& heads = {});

  // Of more than one.
  Communicator& ranks() const { return *ranks_; }
  bool alone() const { return !ranks_; }
  int rank() const { return rank_in(ranks_); }
  const SequenceLayout& layout() const { return layout_; }
  // Of this rank.
  const std::vector<Piece>& pieces() const { return pieces_; }
  int64_t tokens() const { return layout_.tokens(rank()); }
  ContextMethod method() const { return method_; }
  const std::vector<SharedHeads>& shared_heads() const { return shared_heads_; }
  // Of this rank, in all passes of the batch so far: mechanisms that choose blocks add to it.
  BlockChoices& choices() const { return choices_; }
  // With those of layers that share out heads.
  BlockChoices all_choices() const;

 private:
  Group ranks_;
  SequenceLayout layout_;
  std::vector<Piece> pieces_;
  ContextMethod method_;
  std::vector<SharedHeads> shared_heads_;
  mutable BlockChoices choices_;  // as the group's traffic, no part of what the batch is
};

}  // namespace longreach
