#include "layers/attention/common/context/stretch_rows.h"

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
  const SequenceLayout& layout = context_->layout();
  const size_t document = layout.document_number(token);
  return counted_.cu_seqlens()[document] + count_(token - layout.cu_seqlens()[document]);
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
