// The two exchanges of heads that neighbouring ranks share out. Rows are what a token has for one kv head.
#pragma once
#include <ATen/core/Tensor.h>

#include <string_view>
#include <vector>

#include "distributed/context_group.h"

namespace longreach {

class HeadExchange {
 public:
  // whole: the group that `shared` divides into neighbours. kv_heads: at least as many as neighbours.
  HeadExchange(const ContextGroup& whole, const SharedHeads& shared, int64_t kv_heads);

  // Of this rank; the first of all heads come to the first of the neighbours.
  const Interval& own_heads() const { return heads_[static_cast<size_t>(neighbours_->rank())]; }
  int64_t kv_heads() const { return heads_.back().end; }
  int64_t own_tokens() const { return tokens_[static_cast<size_t>(neighbours_->rank())]; }
  int64_t all_tokens() const;  // of all neighbours

  // Rows that leave for others, one way and the other.
  int64_t sent_to_heads() const { return own_tokens() * (kv_heads() - own_heads().size()); }
  int64_t sent_to_tokens() const { return (all_tokens() - own_tokens()) * own_heads().size(); }

  // rows [n, kv heads, W] of own tokens -> [N, own heads, W] of all tokens of the neighbours, in the order of
  // the row. Called by all neighbours.
  at::Tensor to_heads(const at::Tensor& rows, std::string_view label) const;
  // rows [N, own heads, W] -> [n, kv heads, W].
  at::Tensor to_tokens(const at::Tensor& rows, std::string_view label) const;

 private:
  Group neighbours_;
  std::vector<int64_t> tokens_;    // of each neighbour
  std::vector<Interval> heads_;    // of each neighbour
  at::Tensor by_rank_, by_token_;  // int64 [N]: where the row's tokens lie rank by rank, and the inverse;
                                   // undefined: as in the row
};

}  // namespace longreach
