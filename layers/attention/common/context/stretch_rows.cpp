#include "layers/attention/common/context/stretch_rows.h"

#include <algorithm>

#include "layers/attention/common/context/intervals.h"

namespace longreach {

StretchRows::StretchRows(std::shared_ptr<const ContextGroup> context,
                         const std::function<int64_t(int64_t)>& count)
    : context_(std::move(context)),
      count_(count),
      counted_(context_->layout().counted(count)),
      wanted_(wanted_by(context_->rank())),
      exchange_(
          std::make_shared<RowExchange>(context_, counted_, [this](int rank) { return wanted_by(rank); })) {}

int64_t StretchRows::row(int64_t token) const {
  const std::vector<int32_t>& bounds = context_->layout().cu_seqlens();
  const auto next = std::upper_bound(bounds.begin(), bounds.end(), token);
  return counted_.cu_seqlens()[static_cast<size_t>(next - bounds.begin()) - 1] + count_(token - *(next - 1));
}

std::vector<Interval> StretchRows::wanted_by(int rank) const {
  std::vector<Interval> wanted;
  for (const Piece& piece : context_->layout().pieces(rank))
    wanted.push_back({row(piece.history_begin), row(piece.begin + piece.tokens)});
  return united(std::move(wanted));
}

Interval StretchRows::of(int64_t begin, int64_t end) const {
  return {count_in(wanted_, 0, row(begin)), count_in(wanted_, 0, row(end))};
}

}  // namespace longreach
