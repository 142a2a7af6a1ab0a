#include "distributed/sequence_layout.h"

#include <algorithm>

#include "core/error.h"
#include "distributed/span_balance.h"

namespace longreach {
namespace {

void check_bounds(const std::vector<int32_t>& cu_seqlens, int ranks, int64_t grain) {
  check<ShapeError>(
      !cu_seqlens.empty() && cu_seqlens.front() == 0 && std::is_sorted(cu_seqlens.begin(), cu_seqlens.end()),
      "cu_seqlens: expected bounds of documents that begin with 0 and do not fall");
  check<ShapeError>(ranks >= 1 && grain >= 1, "a layout over ", ranks, " ranks with grain ", grain,
                    ", expected 1 or more");
}

}  // namespace

double causal_pairs(int64_t tokens) {
  return static_cast<double>(tokens) * (static_cast<double>(tokens) + 1) / 2;
}

SequenceLayout::SequenceLayout(std::vector<int32_t> cu_seqlens, int ranks, int64_t grain, Balance balance,
                               const Cost& cost)
    : cu_seqlens_(std::move(cu_seqlens)), ranks_(ranks), grain_(grain) {
  check_bounds(cu_seqlens_, ranks, grain);
  spans_ = deal_out(cu_seqlens_, ranks, grain, balance, cost);
}

size_t SequenceLayout::document_number(int64_t token) const {
  const auto next = std::upper_bound(cu_seqlens_.begin(), cu_seqlens_.end(), token);
  return static_cast<size_t>(next - cu_seqlens_.begin()) - 1;
}

Interval SequenceLayout::document_of(int64_t token) const {
  const size_t document = document_number(token);
  return {cu_seqlens_[document], cu_seqlens_[document + 1]};
}

double SequenceLayout::imbalance(const Cost& cost) const {
  return RowCost(cu_seqlens_, cost).imbalance(spans_, ranks_);
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
