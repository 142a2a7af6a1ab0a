// Softmax attention of one rank's pieces over keys that several ranks own. The keys are fetched, read and let
// go: for the backward pass they are fetched again, so that no rank keeps those of the others.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "layers/attention/common/context/row_exchange.h"
#include "layers/attention/common/softmax_attention.h"
#include "layers/ops/common/softmax_operator.h"

namespace longreach {

// Tokens of the row, all before piece.begin and of its document, that queries of a continued piece of a rank
// read beside the piece itself. For the same bits as on one rank they begin and end, counted within the
// document, at multiples of the operators' tile, which is 64.
using HistoryOf = std::function<std::vector<Interval>(int rank, const Piece& piece)>;

// That of a causal mask with a window (0: none) and sinks: the whole document before the piece, or what the
// window and the sinks reach, in whole tiles.
HistoryOf history_of(const IntervalMask& mask);

// One call of an operator: some of the own queries, some of the keys that were fetched.
struct PieceCall {
  int64_t query = 0, queries = 0;
  int64_t key = 0, keys = 0;
  std::shared_ptr<const SoftmaxOperator> attend;
};

// Which keys a rank's pieces read, and where they lie when they have come: all that the rank wants of a
// document up to a piece's end are one run, so that queries are the last of the keys.
class PieceKeys {
 public:
  // history: the same function on all ranks.
  PieceKeys(std::shared_ptr<const ContextGroup> context, const HistoryOf& history);

  const ContextGroup& context() const { return *context_; }
  const std::shared_ptr<const RowExchange>& exchange() const { return exchange_; }
  // In how many streams keys of the row should come, at most one a head: one where no rank wants more than
  // twice what a rank has on average, else so many that what is here of them at once is less than that.
  int64_t streams(int64_t kv_heads) const;
  // Tokens of the row that the piece's run of keys consists of.
  std::vector<Interval> tokens_of(const Piece& piece) const;
  // Where that run lies among what has come.
  Interval of(const Piece& piece) const;
  // The call for a piece.
  PieceCall call(const Piece& piece, std::shared_ptr<const SoftmaxOperator> attend) const;

 private:
  std::shared_ptr<const ContextGroup> context_;
  std::vector<Interval> wanted_;  // in order, apart
  std::shared_ptr<const RowExchange> exchange_;
};

struct AttendedPieces {
  at::Tensor o;                       // [1, n, H, Dv]
  std::vector<at::Tensor> block_max;  // of each call whose operator was asked for statistics, no gradient
};

// q [1, n, H, D], k [1, n, HK, D], v [1, n, HV, Dv] of own tokens. Calls cover all own queries.
// Differentiable; gradients of keys are float32 until they are home. Called by all ranks.
// streams: keys come, and are let go, for so many groups of heads one after the other. More than one: HK is
// HV, and the operators are the same for every head and leave no statistics.
AttendedPieces attend_pieces(const std::shared_ptr<const RowExchange>& exchange, std::vector<PieceCall> calls,
                             const Heads& heads, int64_t streams = 1);

// The fused operator or its reference over every piece; mask: causal, with a window and sinks alone.
at::Tensor attend_in_context(const std::shared_ptr<const ContextGroup>& context, const Heads& heads,
                             const IntervalMask& mask, Implementation implementation);

}  // namespace longreach
