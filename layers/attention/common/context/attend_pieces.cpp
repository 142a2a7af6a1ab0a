#include "layers/attention/common/context/attend_pieces.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "layers/attention/common/context/intervals.h"
#include "layers/attention/common/context/places.h"
#include "layers/ops/common/autograd.h"

namespace longreach {
namespace {

constexpr const char* kLabel = "keys";

// Keys and values of a token side by side, as they travel.
class KeyRows {
 public:
  KeyRows(const at::Tensor& k, const at::Tensor& v)
      : key_heads_(k.size(2)),
        key_size_(k.size(3)),
        value_heads_(v.size(2)),
        value_size_(v.size(3)),
        split_(k.size(2) * k.size(3)),
        width_(split_ + v.size(2) * v.size(3)) {}

  static at::Tensor joined(const at::Tensor& k, const at::Tensor& v) {
    return at::cat({k[0].flatten(1), v[0].flatten(1)}, 1);
  }
  // [1, rows, heads, size] of rows [rows, width].
  at::Tensor keys(const at::Tensor& rows) const {
    return rows.narrow(1, 0, split_).unflatten(1, {key_heads_, key_size_}).unsqueeze(0);
  }
  at::Tensor values(const at::Tensor& rows) const {
    return rows.narrow(1, split_, width_ - split_).unflatten(1, {value_heads_, value_size_}).unsqueeze(0);
  }
  int64_t width() const { return width_; }

 private:
  int64_t key_heads_, key_size_, value_heads_, value_size_, split_, width_;
};

class AttendPieces final : public FusedOp {
 public:
  AttendPieces(std::shared_ptr<const RowExchange> exchange, std::vector<PieceCall> calls)
      : exchange_(std::move(exchange)), calls_(std::move(calls)) {}

  std::string name() const override { return "attend_pieces"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    const at::Tensor &q = inputs[0], &k = inputs[1], &v = inputs[2];
    const KeyRows rows(k, v);
    const at::Tensor fetched = exchange_->fetch(KeyRows::joined(k, v), kLabel);
    const at::Tensor keys = rows.keys(fetched), values = rows.values(fetched);
    const at::Tensor o = at::empty({1, q.size(1), q.size(2), v.size(3)}, q.options());
    saved = {q, k, v, o};
    Tensors outputs{o};
    for (const PieceCall& call : calls_) {
      const auto out =
          call.attend->forward(q.narrow(1, call.query, call.queries), keys.narrow(1, call.key, call.keys),
                               values.narrow(1, call.key, call.keys));
      o.narrow(1, call.query, call.queries).copy_(out.o);
      saved.push_back(out.lse);
      if (out.block_max.defined()) outputs.push_back(out.block_max);
    }
    return outputs;
  }

  Tensors backward(const Tensors& saved, const Tensors& grads, const std::vector<bool>&) const override {
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &o = saved[3];
    // An undefined gradient is none of this rank; the others have theirs.
    const at::Tensor d_o =
        grads[0].defined() ? grads[0].to(q.scalar_type()) : at::zeros(o.sizes(), o.options());
    const KeyRows rows(k, v);
    const at::Tensor fetched = exchange_->fetch(KeyRows::joined(k, v), kLabel);
    const at::Tensor keys = rows.keys(fetched), values = rows.values(fetched);
    const auto sums = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor d_fetched = at::zeros({fetched.size(0), rows.width()}, q.options().dtype(sums));
    const at::Tensor dk = rows.keys(d_fetched), dv = rows.values(d_fetched);
    const at::Tensor dq = at::empty(q.sizes(), q.options());
    for (size_t i = 0; i < calls_.size(); ++i) {
      const PieceCall& call = calls_[i];
      const auto of_queries = [&](const at::Tensor& x) { return x.narrow(1, call.query, call.queries); };
      const auto of_keys = [&](const at::Tensor& x) { return x.narrow(1, call.key, call.keys); };
      const auto found = call.attend->backward(of_queries(q), of_keys(keys), of_keys(values),
                                               {of_queries(o), saved[4 + i], {}}, of_queries(d_o));
      of_queries(dq).copy_(found.dq);
      of_keys(dk).add_(found.dk);
      of_keys(dv).add_(found.dv);
    }
    const at::Tensor home = exchange_->give_back(d_fetched, std::string(kLabel) + " gradients");
    return {dq, rows.keys(home).to(k.scalar_type()), rows.values(home).to(v.scalar_type())};
  }

 private:
  std::shared_ptr<const RowExchange> exchange_;
  std::vector<PieceCall> calls_;
};

std::vector<Interval> wanted_by(const SequenceLayout& layout, int rank, const HistoryOf& history) {
  std::vector<Interval> wanted = layout.owned(rank);
  for (const Piece& piece : layout.pieces(rank)) {
    if (!piece.continued()) continue;
    const std::vector<Interval> before = history(rank, piece);
    wanted.insert(wanted.end(), before.begin(), before.end());
  }
  return united(std::move(wanted));
}

// Whole tiles of a document: kernels of one rank begin theirs there.
constexpr int64_t kTile = 64;

std::vector<Interval> interval_history(const Piece& piece, const IntervalMask& mask) {
  const int64_t document = piece.history_begin, before = piece.before();
  const int64_t recent =
      mask.window == 0 ? 0 : std::max<int64_t>(before - (mask.window - 1), 0) / kTile * kTile;
  const int64_t sinks = (mask.sinks + kTile - 1) / kTile * kTile;
  if (recent <= sinks) return {{document, piece.begin}};
  return {{document, document + sinks}, {document + recent, piece.begin}};
}

}  // namespace

HistoryOf history_of(const IntervalMask& mask) {
  return [mask](int, const Piece& piece) { return interval_history(piece, mask); };
}

PieceKeys::PieceKeys(std::shared_ptr<const ContextGroup> context, const HistoryOf& history)
    : context_(std::move(context)),
      wanted_(wanted_by(context_->layout(), context_->rank(), history)),
      exchange_(std::make_shared<RowExchange>(context_, context_->layout(), [&](int rank) {
        return wanted_by(context_->layout(), rank, history);
      })) {}

std::vector<Interval> PieceKeys::tokens_of(const Piece& piece) const {
  std::vector<Interval> tokens;
  for (const Interval& interval : wanted_) {
    const Interval seen{std::max(interval.begin, piece.history_begin),
                        std::min(interval.end, piece.begin + piece.tokens)};
    if (seen.begin < seen.end) tokens.push_back(seen);
  }
  return tokens;
}

Interval PieceKeys::of(const Piece& piece) const {
  return {count_in(wanted_, 0, piece.history_begin), count_in(wanted_, 0, piece.begin + piece.tokens)};
}

PieceCall PieceKeys::call(const Piece& piece, std::shared_ptr<const SoftmaxOperator> attend) const {
  const Interval keys = of(piece);
  return {.query = piece.local,
          .queries = piece.tokens,
          .key = keys.begin,
          .keys = keys.size(),
          .attend = std::move(attend)};
}

AttendedPieces attend_pieces(const std::shared_ptr<const RowExchange>& exchange, std::vector<PieceCall> calls,
                             const Heads& heads) {
  const Tensors outputs =
      differentiable(std::make_shared<AttendPieces>(exchange, std::move(calls)), {heads.q, heads.k, heads.v});
  AttendedPieces attended{outputs[0], {}};
  for (size_t i = 1; i < outputs.size(); ++i) attended.block_max.push_back(outputs[i].detach());
  return attended;
}

at::Tensor attend_in_context(const std::shared_ptr<const ContextGroup>& context, const Heads& heads,
                             const IntervalMask& mask, Implementation implementation) {
  const PieceKeys keys(context, history_of(mask));
  std::vector<PieceCall> calls;
  for (const Piece& piece : context->pieces()) {
    IntervalMask own = mask;
    own.cu_seqlens_q = own.cu_seqlens_k = cu_seqlens_of(piece);
    calls.push_back(keys.call(piece, interval_operator(implementation, own)));
  }
  return attend_pieces(keys.exchange(), std::move(calls), heads).o;
}

}  // namespace longreach
