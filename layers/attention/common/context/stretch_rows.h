// Rows that stand for stretches of tokens (windows, blocks of keys): whose they are, and the exchange of
// those that a rank's pieces look back on.
#pragma once
#include <functional>
#include <memory>

#include "layers/attention/common/context/row_exchange.h"

namespace longreach {

class StretchRows {
 public:
  // count: SequenceLayout::counted. A row belongs to whom the last token that it waits for belongs to.
  StretchRows(std::shared_ptr<const ContextGroup> context, const std::function<int64_t(int64_t)>& count);

  // Rows that belong to this rank.
  int64_t own() const { return counted_.tokens(context_->rank()); }
  // What arrives: for every own piece the rows of its documents from the first on, up to the piece's end.
  const std::shared_ptr<const RowExchange>& exchange() const { return exchange_; }
  // Those of a piece among what arrives; those of tokens [begin, end), which a rank has wanted.
  Interval of(const Piece& piece) const { return of(piece.history_begin, piece.begin + piece.tokens); }
  Interval of(int64_t begin, int64_t end) const;

 private:
  std::vector<Interval> wanted_by(int rank) const;
  int64_t row(int64_t token) const;  // how many rows come before the token

  std::shared_ptr<const ContextGroup> context_;
  std::function<int64_t(int64_t)> count_;
  SequenceLayout counted_;
  std::vector<Interval> wanted_;
  std::shared_ptr<const RowExchange> exchange_;
};

}  // namespace longreach
