// Cuts a row into spans and deals them out to ranks, by what they cost.
#pragma once
#include <cstdint>
#include <vector>

#include "distributed/sequence_layout.h"

namespace longreach {

// What the tokens of a row cost, before any place of it.
class RowCost {
 public:
  RowCost(const std::vector<int32_t>& cu_seqlens, const Cost& cost);

  double before(int64_t token) const;
  double of(const Span& span) const { return before(span.end) - before(span.begin); }
  double all() const { return before_document_.back(); }
  // Of each rank.
  std::vector<double> loads(const std::vector<Span>& spans, int ranks) const;
  // Cost of the dearest rank over the mean.
  double imbalance(const std::vector<Span>& spans, int ranks) const;

 private:
  const std::vector<int32_t>& cu_seqlens_;
  const Cost& cost_;
  std::vector<double> before_document_;  // of the whole documents before each, then of all
};

// In the order of the row, none of them empty. Ranks get about equally many tokens of a row: what they hold
// is memory. ptrr then moves borders between a dear rank and a cheap one, by less than a span.
std::vector<Span> deal_out(const std::vector<int32_t>& cu_seqlens, int ranks, int64_t grain, Balance balance,
                           const Cost& cost);

}  // namespace longreach
