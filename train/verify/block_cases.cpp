// Cases of block attention and selection: S2-Attention's patterns, BiFormer's routing, exact top-k tokens.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "layers/attention/biformer/biformer.h"
#include "layers/ops/block_attention/block_attention.h"
#include "layers/ops/interval_attention/interval_attention.h"
#include "layers/ops/selection/selection.h"
#include "train/verify/runners.h"
#include "train/verify/s2_pattern.h"

namespace longreach::verify {
namespace {

struct Qkv {
  at::Tensor q, k, v;
};

Qkv read_qkv(Case& run) { return {run.sequence("in.q"), run.sequence("in.k"), run.sequence("in.v")}; }

// A config that the operators refuse is one that this program does not know.
template <class F>
auto known(const Case& run, F&& f) {
  try {
    return f();
  } catch (const ConfigError& error) {
    throw UnknownCase(one_line(text(run.file.path(), ": ", error.what())));
  }
}

// The rows of a mask [H, M, N] as compressed sparse rows: where each begins, and its columns, -1 behind them.
void produce_sparse_rows(Case& run, const at::Tensor& mask) {
  const at::Tensor counts = mask.sum(-1), ends = counts.cumsum(1);
  const int64_t heads = mask.size(0), longest = std::max<int64_t>(ends.max().item<int64_t>(), 0);
  at::Tensor crow = at::zeros({heads, mask.size(1) + 1}, at::kLong);
  crow.narrow(1, 1, mask.size(1)).copy_(ends);
  at::Tensor col = at::full({heads, longest}, -1, at::kLong);
  for (int64_t head = 0; head < heads; ++head) {
    const at::Tensor columns = mask[head].nonzero().select(1, 1);
    col[head].narrow(0, 0, columns.numel()).copy_(columns);
  }
  run.produce("block_mask", mask);
  run.produce("crow", crow);
  run.produce("col", col);
}

void run_region_routing(Case& run) {
  const VectorFile& file = run.file;
  const Qkv in = read_qkv(run);
  const BiformerRouting routing{.region = file.integer("region"),
                                .topk = file.integer("topk"),
                                .causal = file.truth_or("causal", false),
                                .query = BiformerRouting::Query::mean};
  const BiformerOutput out = known(run, [&] {
    return biformer_attention(in.q, in.k, in.v, routing, {},
                              file.scale(in.q.size(3), 1.0 / std::sqrt(in.q.size(3))), run.implementation);
  });
  run.produce_sequence("o", out.o);
  run.produce("lse", out.lse);
  const at::Tensor lists = out.indices.to(at::kLong);
  at::Tensor mask = at::zeros({lists.size(0), lists.size(1), lists.size(2), lists.size(2) + 1}, at::kBool);
  mask.scatter_(3, lists.where(lists >= 0, at::full({}, lists.size(2), at::kLong)), true);
  run.produce("block_mask", mask.narrow(3, 0, lists.size(2)));
}

// Whether `regions` are topk of the largest scores, but for what rounding in `dtype` leaves open.
bool is_choice_of(const at::Tensor& regions, const at::Tensor& scores, at::ScalarType dtype) {
  const int64_t topk = regions.size(-1);
  const at::Tensor named = at::zeros_like(scores).scatter_(-1, regions, 1.0);
  if (!(named.sum(-1) == topk).all().item<bool>()) return false;  // one twice
  const double epsilon = dtype == at::kDouble  ? 2.2e-16
                         : dtype == at::kFloat ? 1.2e-7
                                               : 7.8e-3,
               rounding = 8 * epsilon * scores.abs().max().item<double>();
  const at::Tensor least = std::get<0>(at::topk(scores, topk, -1)).select(-1, topk - 1).unsqueeze(-1);
  return (scores.gather(-1, regions) >= least - rounding).all().item<bool>();
}

// Attention of each query over the keys that its list names: gathered, a query a batch entry. indices int32
// [B, Hl, T, S], -1 at the end.
IntervalAttentionOutput attend_listed(const Case& run, const Qkv& in, const at::Tensor& indices,
                                      double scale) {
  const int64_t batch = in.q.size(0), tokens = in.q.size(1), lists = indices.size(1), size = indices.size(3);
  const at::Tensor list = at::arange(batch * lists, at::kLong).view({batch, lists, 1, 1}),
                   places = (indices.to(at::kLong).clamp_min(0) + list * in.k.size(1)).flatten();
  const auto gathered = [&](const at::Tensor& x) {
    return x.repeat_interleave(lists / x.size(2), 2)
        .transpose(1, 2)
        .reshape({-1, x.size(3)})
        .index_select(0, places)
        .view({batch, lists, tokens, size, x.size(3)})
        .permute({0, 2, 3, 1, 4})
        .reshape({batch * tokens, size, lists, x.size(3)});
  };
  IntervalMask mask{.causal = false};
  mask.hi = (indices >= 0).sum(-1).transpose(1, 2).reshape({batch * tokens, lists, 1}).to(at::kInt);
  mask.lo = at::zeros_like(mask.hi);
  const at::Tensor q = in.q.reshape({batch * tokens, 1, in.q.size(2), in.q.size(3)});
  const auto attend = run.fused() ? interval_attention : interval_attention_reference;
  const IntervalAttentionOutput out = attend(q, gathered(in.k), gathered(in.v), mask, scale);
  return {out.o.view({batch, tokens, in.q.size(2), -1}), out.lse.view({batch, tokens, -1}).transpose(1, 2)};
}

}  // namespace

void run_s2_attention(Case& run) {
  const VectorFile& file = run.file;
  const Qkv in = read_qkv(run);
  const int64_t heads = in.q.size(2), past = file.integer_or("past_len", 0), tokens = in.k.size(1);
  const S2Pattern pattern = read_s2_pattern(file, heads, in.k.size(2));
  const int64_t size = pattern.block_size;
  if (past % size != 0 || past + in.q.size(1) != tokens)
    throw UnknownCase(one_line(text(file.path(), ": past_len ", past, ", expected whole blocks of ", size,
                                    " and queries for the rest of ", tokens, " tokens")));
  const at::Tensor mask = s2_block_mask(pattern, (tokens + size - 1) / size, past / size);
  produce_sparse_rows(run, pattern.heads == 1 ? mask : mask.repeat_interleave(heads / pattern.heads, 0));
  const BlockLists lists{.indices = s2_lists(pattern, tokens, past, size),
                         .query_block = size,
                         .key_block = size,
                         .causal = pattern.causal};
  const double usual = 1.0 / std::sqrt(static_cast<double>(in.q.size(3)));
  const double scale = file.config().contains("sm_scale") ? file.real("sm_scale") : usual;
  const auto attend = run.fused() ? block_attention : block_attention_reference;
  const BlockAttentionOutput out = attend(in.q, in.k, in.v, lists, {.scale = scale});
  run.produce_sequence("o", out.o);
  run.produce("lse", out.lse);
}

void run_biformer_bra(Case& run) {
  if (!run.has("in.x")) return run_region_routing(run);
  const VectorFile& file = run.file;
  const int64_t local = file.integer_or("side_dwconv", 3);
  const BiformerImageWeights weights{.qkv = run.leaf("param.qkv.qkv.weight"),
                                     .qkv_bias = run.leaf("param.qkv.qkv.bias"),
                                     .lepe = run.leaf("param.lepe.weight"),
                                     .lepe_bias = run.leaf("param.lepe.bias"),
                                     .wo = run.leaf("param.wo.weight"),
                                     .wo_bias = run.leaf("param.wo.bias")};
  if (weights.lepe.size(-1) != local)
    throw UnknownCase(one_line(text(file.path(), ": side_dwconv ", local, ", but lepe.weight has ",
                                    weights.lepe.size(-1), " columns")));
  BiformerImageOptions options{.num_heads = file.integer("num_heads"),
                               .n_win = file.integer("n_win"),
                               .topk = file.integer("topk"),
                               .soft_routing = file.truth_or("soft_routing", false),
                               .implementation = run.implementation};
  if (file.config().contains("softmax_scale")) options.scale = file.real("softmax_scale");
  const at::Tensor x = run.leaf("in.x");
  BiformerImageOutput out = known(run, [&] { return biformer_image(x, weights, options); });
  // Equal scores leave the choice open, and gradients follow it. The file's choice is taken when it is one of those
  // that the scores allow; any other is compared, and fails.
  const at::Tensor chosen =
      run.has("out.route_idx") ? run.file.tensor("out.route_idx").to(at::kLong) : out.regions;
  if (chosen.sizes() == out.regions.sizes() && is_choice_of(chosen, out.scores.detach(), run.dtype)) {
    options.regions = chosen;
    out = biformer_image(x, weights, options);
  }
  run.produce("o", out.y);
  run.produce_lists("route_idx", out.regions);
  run.produce("route_weight", out.weights);
}

void run_topk_token(Case& run) {
  const VectorFile& file = run.file;
  const Qkv in = read_qkv(run);
  const int64_t heads = in.q.size(2);
  const bool causal = file.truth_or("causal", true), vote = file.truth_or("soft_vote_per_kv_group", false);
  const double scale = file.scale(in.q.size(3), 1.0 / std::sqrt(static_cast<double>(in.q.size(3))));
  // A token a block: the fused scores exist for a tile of queries at a time.
  const BlockScores how{.visible = causal ? BlockScores::Visible::started : BlockScores::Visible::all,
                        .softmax = vote,
                        .scale = scale,
                        .width = 1,
                        .stride = 1};
  const BlockGeometry geometry{.query_block = 1, .key_block = 1, .tokens = in.k.size(1)};
  const SelectionRule rule{.top_k = file.integer("topk"), .latest = 0, .causal = causal};
  const auto select = run.fused() ? select_blocks : select_blocks_reference;
  const at::Tensor indices = known(run, [&] {
    return select(in.q, in.k, vote ? in.k.size(2) : heads, how, geometry, rule, false).indices;
  });
  const IntervalAttentionOutput out = attend_listed(run, in, indices, scale);
  run.produce_sequence("o", out.o);
  run.produce("lse", out.lse);
  run.produce("count", (indices >= 0).sum(-1).repeat_interleave(heads / indices.size(1), 1));
}

}  // namespace longreach::verify
