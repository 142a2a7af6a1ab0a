#include "layers/attention/common/context/head_share.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "distributed/absent_rank.h"
#include "distributed/mesh.h"
#include "layers/attention/common/context/head_exchange.h"
#include "layers/attention/common/context/places.h"
#include "layers/basic/rope_documents.h"
#include "layers/ops/common/autograd.h"
#include "layers/ops/common/check.h"

namespace longreach {
namespace {

constexpr const char *kToHeads = "tokens to heads", *kToTokens = "heads to tokens";

// A tensor [1, tokens, heads, size] as rows of kv heads: so many of its heads a kv head.
struct Column {
  int64_t each, size;
  int64_t width() const { return each * size; }
};
using Columns = std::vector<Column>;

// [tokens, kv heads, sum of widths]
at::Tensor joined(const Tensors& x, const Columns& columns) {
  Tensors parts;
  for (size_t i = 0; i < x.size(); ++i)
    parts.push_back(
        x[i].squeeze(0).reshape({x[i].size(1), x[i].size(2) / columns[i].each, columns[i].width()}));
  return parts.size() == 1 ? parts[0] : at::cat(parts, 2);
}

Tensors split(const at::Tensor& rows, const Columns& columns) {
  Tensors x;
  int64_t at = 0;
  for (const Column& column : columns) {
    x.push_back(rows.narrow(2, at, column.width())
                    .reshape({1, rows.size(0), rows.size(1) * column.each, column.size}));
    at += column.width();
  }
  return x;
}

// One of the two exchanges; its backward pass is the other.
class MoveHeads final : public FusedOp {
 public:
  MoveHeads(std::shared_ptr<const HeadExchange> exchange, bool to_heads, Columns columns)
      : exchange_(std::move(exchange)), to_heads_(to_heads), columns_(std::move(columns)) {}

  std::string name() const override { return to_heads_ ? kToHeads : kToTokens; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    const at::Tensor rows = joined(inputs, columns_);
    Tensors moved =
        split(to_heads_ ? exchange_->to_heads(rows, name()) : exchange_->to_tokens(rows, name()), columns_);
    saved = {at::empty({0}, rows.options())};
    return moved;
  }

  // An undefined gradient is none of this rank; the others have theirs.
  Tensors backward(const Tensors& saved, const Tensors& grads, const std::vector<bool>&) const override {
    const std::string label = std::string(name()).append(" gradients");
    const int64_t tokens = to_heads_ ? exchange_->all_tokens() : exchange_->own_tokens(),
                  heads = to_heads_ ? exchange_->own_heads().size() : exchange_->kv_heads();
    Tensors defined;
    for (size_t i = 0; i < grads.size(); ++i)
      defined.push_back(
          grads[i].defined()
              ? grads[i]
              : at::zeros({1, tokens, heads * columns_[i].each, columns_[i].size}, saved[0].options()));
    const at::Tensor rows = joined(defined, columns_);
    return split(to_heads_ ? exchange_->to_tokens(rows, label) : exchange_->to_heads(rows, label), columns_);
  }

 private:
  std::shared_ptr<const HeadExchange> exchange_;
  bool to_heads_;
  Columns columns_;
};

// One of several ways through the row, on a rank that need not be here: keys are fetched, or heads shared out
// by groups[way - 1].
std::shared_ptr<const ContextGroup> one_way(const ContextGroup& context, int rank, size_t way) {
  const Group ranks = absent_rank(rank, context.layout().ranks());
  if (way == 0) return std::make_shared<const ContextGroup>(ranks, context.layout());
  const auto groups = head_groups(ranks, ContextMethod::automatic);
  return std::make_shared<const ContextGroup>(ranks, context.layout(), ContextMethod::heads,
                                              std::vector<HeadGroup>{groups[way - 1]});
}

int64_t planned_bytes(const ContextGroup& context, size_t way, const TrafficPlanner& layer,
                      at::ScalarType dtype) {
  int64_t bytes = 0;
  for (const int rank : ranks_to_ask(context.layout().ranks())) {
    const PlannedTraffic plan = layer.planned_traffic(one_way(context, rank, way), dtype);
    for (const auto* pass : {&plan.forward, &plan.backward})
      for (const auto& [label, sent] : *pass) bytes += sent;
  }
  return bytes;
}

// Null: keys are fetched.
const SharedHeads* fewest_bytes(const ContextGroup& context, int64_t kv_heads, const TrafficPlanner& layer,
                                at::ScalarType dtype) {
  const std::vector<SharedHeads>& ways = context.shared_heads();
  const SharedHeads* best = nullptr;
  int64_t fewest = planned_bytes(context, 0, layer, dtype);
  for (size_t way = 1; way <= ways.size(); ++way) {
    if (ways[way - 1].neighbours->size() > kv_heads) continue;
    const int64_t bytes = planned_bytes(context, way, layer, dtype);
    if (bytes >= fewest) continue;
    fewest = bytes;
    best = &ways[way - 1];
  }
  return best;
}

const SharedHeads* chosen(const ContextGroup& context, int64_t kv_heads, const TrafficPlanner& layer,
                          at::ScalarType dtype) {
  switch (context.method()) {
    case ContextMethod::fetch:
      return nullptr;
    case ContextMethod::heads:
      return context.shared_heads().empty() ? nullptr : &context.shared_heads().back();
    case ContextMethod::automatic:
      return fewest_bytes(context, kv_heads, layer, dtype);
  }
  return nullptr;
}

void plan(PlannedTraffic& plan, const std::string& label, int64_t there, int64_t back, int64_t bytes,
          bool gradients) {
  plan.forward[label] += there * bytes;
  if (gradients) plan.backward[label + " gradients"] += back * bytes;
}

}  // namespace

HeadShare::HeadShare(std::shared_ptr<const ContextGroup> context, int64_t kv_heads,
                     const TrafficPlanner& layer, at::ScalarType dtype)
    : context_(std::move(context)), kv_heads_(kv_heads), dtype_(dtype) {
  const SharedHeads* shared = chosen(*context_, kv_heads, layer, dtype);
  if (shared == nullptr) return;
  exchange_ = std::make_shared<HeadExchange>(*context_, *shared, kv_heads);
  context_ = shared->tokens;
}

void HeadShare::plan_to_heads(PlannedTraffic& to, int64_t numbers, bool gradients) const {
  if (exchange_)
    plan(to, kToHeads, exchange_->sent_to_heads(), exchange_->sent_to_tokens(),
         numbers * static_cast<int64_t>(c10::elementSize(dtype_)), gradients);
}

void HeadShare::plan_to_tokens(PlannedTraffic& to, int64_t numbers) const {
  if (exchange_)
    plan(to, kToTokens, exchange_->sent_to_tokens(), exchange_->sent_to_heads(),
         numbers * static_cast<int64_t>(c10::elementSize(dtype_)), true);
}

Interval HeadShare::own(int64_t heads) const {
  if (!exchange_ || heads == 1) return {0, heads};
  const int64_t each = heads / kv_heads_;
  check<ShapeError>(each * kv_heads_ == heads, heads, " heads, expected a multiple of ", kv_heads_,
                    " kv heads");
  return {exchange_->own_heads().begin * each, exchange_->own_heads().end * each};
}

at::Tensor HeadShare::own(const at::Tensor& of_heads, int64_t dim) const {
  if (!of_heads.defined()) return of_heads;
  const Interval heads = own(of_heads.size(dim));
  return of_heads.narrow(dim, heads.begin, heads.size());
}

double HeadShare::fraction() const {
  return exchange_ ? static_cast<double>(exchange_->own_heads().size()) / static_cast<double>(kv_heads_)
                   : 1.0;
}

at::Tensor HeadShare::positions(const at::Tensor& own) const {
  if (!exchange_) return own;
  const at::Tensor all = document_positions(whole_cu_seqlens(*context_));
  return all.index_select(1, own_tokens(*context_)).to(own.device());
}

std::vector<at::Tensor> HeadShare::all_to_heads(const std::vector<at::Tensor>& x) const {
  if (!exchange_) return x;
  Columns columns;
  for (const at::Tensor& tensor : x) {
    check<ShapeError>(
        tensor.dim() == 4 && tensor.size(2) % kv_heads_ == 0 && tensor.scalar_type() == x[0].scalar_type(),
        "heads to share out: ", tensor.sizes(), ", expected [1, n, a multiple of ", kv_heads_,
        ", size] of one dtype");
    columns.push_back({tensor.size(2) / kv_heads_, tensor.size(3)});
  }
  return differentiable(std::make_shared<MoveHeads>(exchange_, true, std::move(columns)), x);
}

Heads HeadShare::to_heads(const Heads& heads) const {
  const std::vector<at::Tensor> moved = all_to_heads({heads.q, heads.k, heads.v});
  return {moved[0], moved[1], moved[2]};
}

at::Tensor HeadShare::to_tokens(const at::Tensor& o) const {
  if (!exchange_) return o;
  const Columns columns{{o.size(2) / exchange_->own_heads().size(), o.size(3)}};
  return differentiable(std::make_shared<MoveHeads>(exchange_, false, columns), {o})[0];
}

}  // namespace longreach
