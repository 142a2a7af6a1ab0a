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

// Some of the heads: kv heads [first, first + count) of kv_heads, and the queries' heads that read them.
struct HeadGroup {
  int64_t first, count, kv_heads;

  // Of x [1, T, heads, D], or of statistics [1, heads, T].
  at::Tensor of(const at::Tensor& x, int64_t dim = 2) const {
    const int64_t each = x.size(dim) / kv_heads;
    return x.narrow(dim, first * each, count * each);
  }
};

class AttendPieces final : public FusedOp {
 public:
  AttendPieces(std::shared_ptr<const RowExchange> exchange, std::vector<PieceCall> calls, int64_t streams)
      : exchange_(std::move(exchange)), calls_(std::move(calls)), streams_(streams) {}

  std::string name() const override { return "attend_pieces"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    const at::Tensor &q = inputs[0], &k = inputs[1], &v = inputs[2];
    const at::Tensor o = at::empty({1, q.size(1), q.size(2), v.size(3)}, q.options());
    std::vector<Tensors> lse(calls_.size());
    Tensors outputs{o};
    for (const HeadGroup& group : groups(k)) {
      const KeyRows rows(group.of(k), group.of(v));
      const at::Tensor fetched = exchange_->fetch(KeyRows::joined(group.of(k), group.of(v)), kLabel);
      for (size_t i = 0; i < calls_.size(); ++i) {
        const Views call(calls_[i]);
        const auto out = calls_[i].attend->forward(call.queries(group.of(q)), call.keys(rows.keys(fetched)),
                                                   call.keys(rows.values(fetched)));
        call.queries(group.of(o)).copy_(out.o);
        lse[i].push_back(out.lse);
        if (out.block_max.defined()) outputs.push_back(out.block_max);
      }
    }
    saved = {q, k, v, o};
    for (const Tensors& parts : lse) saved.push_back(parts.size() == 1 ? parts[0] : at::cat(parts, 1));
    return outputs;
  }

  Tensors backward(const Tensors& saved, const Tensors& grads, const std::vector<bool>&) const override {
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &o = saved[3];
    // An undefined gradient is none of this rank; the others have theirs.
    const at::Tensor d_o =
        grads[0].defined() ? grads[0].to(q.scalar_type()) : at::zeros(o.sizes(), o.options());
    const at::Tensor dq = at::empty(q.sizes(), q.options()), dk = at::empty(k.sizes(), k.options()),
                     dv = at::empty(v.sizes(), v.options());
    for (const HeadGroup& group : groups(k)) {
      const KeyRows rows(group.of(k), group.of(v));
      const at::Tensor home = exchange_->give_back(gradients_of_fetched(saved, group, d_o, dq),
                                                   std::string(kLabel) + " gradients");
      group.of(dk).copy_(rows.keys(home));
      group.of(dv).copy_(rows.values(home));
    }
    return {dq, dk, dv};
  }

 private:
  // A call's part of the queries, and of the keys.
  struct Views {
    explicit Views(const PieceCall& call) : call(call) {}
    at::Tensor queries(const at::Tensor& x) const { return x.narrow(1, call.query, call.queries); }
    at::Tensor keys(const at::Tensor& x) const { return x.narrow(1, call.key, call.keys); }
    const PieceCall& call;
  };

  // One after the other, so that keys of the whole row are here for some heads at a time.
  std::vector<HeadGroup> groups(const at::Tensor& k) const {
    const int64_t kv_heads = k.size(2), each = (kv_heads + streams_ - 1) / streams_;
    if (streams_ == 1) return {{0, kv_heads, kv_heads}};
    std::vector<HeadGroup> all;
    for (int64_t first = 0; first < kv_heads; first += each)
      all.push_back({first, std::min(each, kv_heads - first), kv_heads});
    return all;
  }

  // [wanted, width] of keys and values that were fetched for a group of heads; their dq is left in dq.
  at::Tensor gradients_of_fetched(const Tensors& saved, const HeadGroup& group, const at::Tensor& d_o,
                                  const at::Tensor& dq) const {
    const at::Tensor q = group.of(saved[0]), k = group.of(saved[1]), v = group.of(saved[2]),
                     o = group.of(saved[3]);
    const KeyRows rows(k, v);
    const at::Tensor fetched = exchange_->fetch(KeyRows::joined(k, v), kLabel);
    const at::Tensor d_fetched =
        at::zeros({fetched.size(0), rows.width()}, q.options().dtype(sums_of(q.scalar_type())));
    for (size_t i = 0; i < calls_.size(); ++i) {
      const Views call(calls_[i]);
      const auto found = calls_[i].attend->backward(
          call.queries(q), call.keys(rows.keys(fetched)), call.keys(rows.values(fetched)),
          {call.queries(o), group.of(saved[4 + i], 1), {}}, call.queries(group.of(d_o)));
      call.queries(group.of(dq)).copy_(found.dq);
      call.keys(rows.keys(d_fetched)).add_(found.dk);
      call.keys(rows.values(d_fetched)).add_(found.dv);
    }
    return d_fetched;
  }

  std::shared_ptr<const RowExchange> exchange_;
  std::vector<PieceCall> calls_;
  int64_t streams_;
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

// Of keys that have come there are, at some time, so many copies: as they came, in their order, and their
// gradients, twice as wide, of a call, of all and on the way home.
constexpr int64_t kCopies = 4;

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

int64_t PieceKeys::streams(int64_t kv_heads) const {
  const SequenceLayout& layout = context_->layout();
  const int64_t times = layout.total() == 0 ? 1 : exchange_->most_wanted() * layout.ranks() / layout.total();
  return times <= 1 ? 1 : std::min(kCopies * times, kv_heads);
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
                             const Heads& heads, int64_t streams) {
  const Tensors outputs = differentiable(std::make_shared<AttendPieces>(exchange, std::move(calls), streams),
                                         {heads.q, heads.k, heads.v});
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
  return attend_pieces(keys.exchange(), std::move(calls), heads, keys.streams(heads.k.size(2))).o;
}

}  // namespace longreach
