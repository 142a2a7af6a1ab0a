#include "distributed/sequence_layout.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace longreach {
namespace {

// Predicted cost of the dearest rank over the mean, with which more spans a rank are not worth their pieces.
constexpr double kSmallImbalance = 1.03;
constexpr int kMostSpans = 8;

void check_bounds(const std::vector<int32_t>& cu_seqlens, int ranks, int64_t grain) {
  check<ShapeError>(
      !cu_seqlens.empty() && cu_seqlens.front() == 0 && std::is_sorted(cu_seqlens.begin(), cu_seqlens.end()),
      "cu_seqlens: expected bounds of documents that begin with 0 and do not fall");
  check<ShapeError>(ranks >= 1 && grain >= 1, "a layout over ", ranks, " ranks with grain ", grain,
                    ", expected 1 or more");
}

// The place nearest to `wanted` where a span may begin.
int64_t nearest_cut(const std::vector<int32_t>& cu_seqlens, int64_t wanted, int64_t grain) {
  const auto next = std::upper_bound(cu_seqlens.begin(), cu_seqlens.end(), wanted);
  if (next == cu_seqlens.begin() || next == cu_seqlens.end()) return cu_seqlens.back();
  const int64_t begin = *(next - 1), end = *next;
  const int64_t below = begin + (wanted - begin) / grain * grain, above = std::min(below + grain, end);
  return wanted - below <= above - wanted ? below : above;
}

}  // namespace

double causal_pairs(int64_t tokens) {
  return static_cast<double>(tokens) * (static_cast<double>(tokens) + 1) / 2;
}

SequenceLayout::SequenceLayout(std::vector<int32_t> cu_seqlens, int ranks, int64_t grain, Balance balance,
                               const Cost& cost)
    : cu_seqlens_(std::move(cu_seqlens)), ranks_(ranks), grain_(grain) {
  check_bounds(cu_seqlens_, ranks, grain);
  if (balance == Balance::ptrr)
    deal_out_by_cost(cost);
  else
    deal_out(balance == Balance::none ? 1 : 2, balance, cost);
}

void SequenceLayout::deal_out_by_cost(const Cost& cost) {
  std::vector<Span> best;
  double least = 0;
  for (int per_rank = 1; per_rank <= kMostSpans; per_rank *= 2) {
    deal_out(per_rank, Balance::ptrr, cost);
    const double found = imbalance(cost);
    if (best.empty() || found < least) {
      best = spans_;
      least = found;
    }
    if (least <= kSmallImbalance) break;
  }
  spans_ = std::move(best);
}

// Spans of about equal length, then their owners.
void SequenceLayout::deal_out(int per_rank, Balance balance, const Cost& cost) {
  const int count = per_rank * ranks_;
  spans_.clear();
  int64_t begin = 0;
  for (int i = 0; i < count; ++i) {
    const int64_t end = i + 1 == count
                            ? total()
                            : std::max(begin, nearest_cut(cu_seqlens_, total() * (i + 1) / count, grain_));
    const int mirrored = i < ranks_ ? i : count - 1 - i;  // headtail
    if (end > begin) spans_.push_back({begin, end, balance == Balance::none ? i : mirrored});
    begin = end;
  }
  if (balance == Balance::ptrr) give_to_the_least_loaded(per_rank, cost);
}

// The dearest span first, to the rank that has least and room for one more.
void SequenceLayout::give_to_the_least_loaded(int per_rank, const Cost& cost) {
  std::vector<size_t> order(spans_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return cost_of(spans_[a], cost) > cost_of(spans_[b], cost); });
  std::vector<double> load(static_cast<size_t>(ranks_), 0.0);
  std::vector<int> held(static_cast<size_t>(ranks_), 0);
  for (const size_t i : order) {
    int owner = -1;
    for (int rank = 0; rank < ranks_; ++rank)
      if (held[static_cast<size_t>(rank)] < per_rank &&
          (owner < 0 || load[static_cast<size_t>(rank)] < load[static_cast<size_t>(owner)]))
        owner = rank;
    spans_[i].owner = owner;
    load[static_cast<size_t>(owner)] += cost_of(spans_[i], cost);
    ++held[static_cast<size_t>(owner)];
  }
}

size_t SequenceLayout::document_number(int64_t token) const {
  const auto next = std::upper_bound(cu_seqlens_.begin(), cu_seqlens_.end(), token);
  return static_cast<size_t>(next - cu_seqlens_.begin()) - 1;
}

Interval SequenceLayout::document_of(int64_t token) const {
  const size_t document = document_number(token);
  return {cu_seqlens_[document], cu_seqlens_[document + 1]};
}

double SequenceLayout::cost_of(const Span& span, const Cost& cost) const {
  double sum = 0;
  for (int64_t at = span.begin; at < span.end;) {
    const Interval document = document_of(at);
    const int64_t end = std::min(document.end, span.end);
    sum += cost(end - document.begin) - cost(at - document.begin);
    at = end;
  }
  return sum;
}

double SequenceLayout::imbalance(const Cost& cost) const {
  std::vector<double> load(static_cast<size_t>(ranks_), 0.0);
  for (const Span& span : spans_) load[static_cast<size_t>(span.owner)] += cost_of(span, cost);
  const double sum = std::accumulate(load.begin(), load.end(), 0.0);
  return sum == 0 ? 1 : *std::max_element(load.begin(), load.end()) * ranks_ / sum;
}

std::vector<Interval> SequenceLayout::owned(int rank) const {
  std::vector<Interval> intervals;
  for (const Span& span : spans_)
    if (span.owner == rank) intervals.push_back({span.begin, span.end});
  return intervals;
}

int64_t SequenceLayout::tokens(int rank) const {
  int64_t sum = 0;
  for (const Interval& interval : owned(rank)) sum += interval.size();
  return sum;
}

std::vector<Piece> SequenceLayout::pieces(int rank) const {
  std::vector<Piece> pieces;
  int64_t local = 0;
  for (const Interval& span : owned(rank)) {
    int64_t at = span.begin;
    if (const Interval document = document_of(at); document.begin < at) {
      const int64_t end = std::min(document.end, span.end);
      pieces.push_back({local, end - at, at, document.begin, {}});
      local += end - at;
      at = end;
    }
    if (at == span.end) continue;
    Piece fresh{local, span.end - at, at, at, {0}};
    for (int64_t begin = at; begin < span.end;) {
      begin = std::min(document_of(begin).end, span.end);
      fresh.cu_seqlens.push_back(static_cast<int32_t>(begin - at));
    }
    local += fresh.tokens;
    pieces.push_back(std::move(fresh));
  }
  return pieces;
}

int64_t SequenceLayout::longest_document() const {
  int64_t longest = 0;
  for (size_t d = 0; d + 1 < cu_seqlens_.size(); ++d)
    longest = std::max<int64_t>(longest, cu_seqlens_[d + 1] - cu_seqlens_[d]);
  return longest;
}

SequenceLayout SequenceLayout::counted(const std::function<int64_t(int64_t)>& count) const {
  SequenceLayout counted;
  counted.ranks_ = ranks_;
  counted.cu_seqlens_ = {0};
  for (size_t d = 0; d + 1 < cu_seqlens_.size(); ++d)
    counted.cu_seqlens_.push_back(
        static_cast<int32_t>(counted.cu_seqlens_.back() + count(cu_seqlens_[d + 1] - cu_seqlens_[d])));
  const auto rows_before = [&](int64_t token) {
    const size_t document = document_number(token);
    return counted.cu_seqlens_[document] + count(token - cu_seqlens_[document]);
  };
  for (const Span& span : spans_)
    counted.spans_.push_back({rows_before(span.begin), rows_before(span.end), span.owner});
  return counted;
}

SequenceLayout SequenceLayout::blocks(int64_t size) const {
  check<ShapeError>(size >= 1 && grain_ % size == 0, "blocks of ", size, " tokens are cut by spans of grain ",
                    grain_);
  SequenceLayout layout = counted([size](int64_t tokens) { return (tokens + size - 1) / size; });
  layout.grain_ = grain_ / size;
  return layout;
}

SequenceLayout SequenceLayout::merged(int neighbours) const {
  check<ShapeError>(neighbours >= 1 && ranks_ % neighbours == 0, ranks_, " ranks are no groups of ",
                    neighbours);
  SequenceLayout layout = *this;
  layout.ranks_ = ranks_ / neighbours;
  layout.spans_.clear();
  for (const Span& span : spans_) {
    const int owner = span.owner / neighbours;
    if (!layout.spans_.empty() && layout.spans_.back().owner == owner)
      layout.spans_.back().end = span.end;
    else
      layout.spans_.push_back({span.begin, span.end, owner});
  }
  return layout;
}

}  // namespace longreach
