// Rows that ranks fetch from each other (tokens, or blocks of them), and the gradients that go back.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "distributed/context_group.h"
#include "distributed/fetch_plan.h"

namespace longreach {

// What a rank wants of the row, in the order in which it shall lie.
using Wants = std::function<std::vector<Interval>(int rank)>;

// Of gradients on their way home, and of states: float32, float64 of float64.
inline at::ScalarType sums_of(at::ScalarType x) { return x == at::kDouble ? at::kDouble : at::kFloat; }

class RowExchange {
 public:
  // layout: that of the group, or its count in blocks. wants: the same function on all ranks.
  RowExchange(std::shared_ptr<const ContextGroup> context, const SequenceLayout& layout, const Wants& wants);

  // Rows that arrive, own ones included.
  int64_t wanted() const { return plan_.wanted; }
  // By the rank that wants most.
  int64_t most_wanted() const { return plan_.most_wanted; }

  // Rows that leave for others, in one direction.
  int64_t sent() const;

  // x [n, ...] of own rows -> [wanted, ...]. Called by all ranks. A group of one moves nothing.
  at::Tensor fetch(const at::Tensor& x, std::string_view label) const;

  // The way back: d [wanted, ...] of what arrived -> [n, ...]: the sum over all who wanted an own row, this
  // rank's first, then rank by rank. Called by all ranks.
  at::Tensor give_back(const at::Tensor& d, std::string_view label) const;

 private:
  // What arrives, the rows of rank 0 first, is as it was wanted.
  bool in_order() const;
  // d [wanted, ...] in the order of ranks.
  at::Tensor as_they_came(const at::Tensor& d) const;

  std::shared_ptr<const ContextGroup> context_;
  int64_t own_;
  FetchPlan plan_;
};

// fetch as a differentiable step: x [1, n, ...] -> [1, wanted, ...] in float32 (float64 of float64), whatever
// x is: pieces that read a row take it in x's dtype again, and their gradients add up before they are
// rounded. What comes of it must reach the loss on every rank: an exchange that a rank's tape does not hold
// is one for which the others wait.
at::Tensor fetch(const std::shared_ptr<const RowExchange>& exchange, const at::Tensor& x,
                 const std::string& label);

}  // namespace longreach
