#include "layers/attention/common/context/head_exchange.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <numeric>

#include "core/error.h"
#include "layers/attention/common/context/intervals.h"

namespace longreach {
namespace {

// Kv heads of each of `ranks`.
std::vector<Interval> shares_of(int64_t kv_heads, int ranks) {
  check<ConfigError>(kv_heads >= ranks, kv_heads, " kv heads are shared out among ", ranks,
                     " ranks: expected at least one head for each");
  std::vector<Interval> shares;
  for (int64_t rank = 0; rank < ranks; ++rank) shares.push_back(part_of(kv_heads, rank, ranks));
  return shares;
}

// Tokens of ranks [first, first + neighbours) as they lie rank by rank, in the order of the row.
at::Tensor places_of_row(const SequenceLayout& layout, int first, const std::vector<int64_t>& tokens) {
  std::vector<int64_t> next(tokens.size(), 0);
  for (size_t r = 1; r < tokens.size(); ++r) next[r] = next[r - 1] + tokens[r - 1];
  std::vector<at::Tensor> places{at::arange(0, at::kLong)};
  for (const Span& span : layout.spans()) {
    const int64_t rank = span.owner - first, size = span.end - span.begin;
    if (rank < 0 || rank >= static_cast<int64_t>(tokens.size())) continue;
    int64_t& begin = next[static_cast<size_t>(rank)];
    places.push_back(at::arange(begin, begin + size, at::kLong));
    begin += size;
  }
  return at::cat(places);
}

}  // namespace

HeadExchange::HeadExchange(const ContextGroup& whole, const SharedHeads& shared, int64_t kv_heads)
    : neighbours_(shared.neighbours), heads_(shares_of(kv_heads, neighbours_->size())) {
  const int first = whole.rank() - neighbours_->rank();
  for (int r = 0; r < neighbours_->size(); ++r) tokens_.push_back(whole.layout().tokens(first + r));
  const at::Tensor places = places_of_row(whole.layout(), first, tokens_);
  if (places.equal(at::arange(places.numel(), at::kLong))) return;
  by_rank_ = places;
  by_token_ = at::argsort(places);
}

int64_t HeadExchange::all_tokens() const {
  return std::accumulate(tokens_.begin(), tokens_.end(), int64_t{0});
}

at::Tensor HeadExchange::to_heads(const at::Tensor& rows, std::string_view label) const {
  const int64_t mine = own_heads().size(), width = rows.size(2);
  std::vector<at::Tensor> parts;
  Splits send, receive;
  for (size_t r = 0; r < heads_.size(); ++r) {
    parts.push_back(rows.narrow(1, heads_[r].begin, heads_[r].size()).reshape({-1, width}));
    send.push_back(parts.back().size(0));
    receive.push_back(tokens_[r] * mine);
  }
  const at::Tensor out = at::empty({all_tokens() * mine, width}, rows.options());
  neighbours_->all_to_all(out, at::cat(parts), receive, send, label).wait();
  const at::Tensor tokens = out.view({all_tokens(), mine, width});
  return by_rank_.defined() ? tokens.index_select(0, by_rank_.to(rows.device())) : tokens;
}

at::Tensor HeadExchange::to_tokens(const at::Tensor& rows, std::string_view label) const {
  const int64_t mine = own_heads().size(), width = rows.size(2), own = own_tokens();
  const at::Tensor in =
      by_token_.defined() ? rows.index_select(0, by_token_.to(rows.device())) : rows.contiguous();
  Splits send, receive;
  for (size_t r = 0; r < heads_.size(); ++r) {
    send.push_back(tokens_[r] * mine);
    receive.push_back(own * heads_[r].size());
  }
  const at::Tensor out = at::empty({own * kv_heads(), width}, rows.options());
  neighbours_->all_to_all(out, in.view({-1, width}), receive, send, label).wait();
  std::vector<at::Tensor> parts;
  for (const Interval& heads : heads_)
    parts.push_back(out.narrow(0, own * heads.begin, own * heads.size()).view({own, heads.size(), width}));
  return at::cat(parts, 1);
}

}  // namespace longreach
