// Cases of selection: exact top-k tokens of each query, read by interval attention.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros_like.h>

#include "layers/ops/selection/selection.h"
#include "train/verify/case.h"
#include "train/verify/operators.h"

namespace longreach::verify {
namespace {

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
  const IntervalAttentionOutput out = attend(run, {q, gathered(in.k), gathered(in.v)}, mask, scale);
  return {out.o.view({batch, tokens, in.q.size(2), -1}), out.lse.view({batch, tokens, -1}).transpose(1, 2)};
}

}  // namespace

void verify_topk_token(Case& run) {
  const VectorFile& file = run.file;
  const Qkv in = read_qkv(run);
  const int64_t heads = in.q.size(2);
  const bool causal = file.truth_or("causal", true), vote = file.truth_or("soft_vote_per_kv_group", false);
  const double scale = file.scale(in.q.size(3));
  // A token a block: the fused scores exist for a tile of queries at a time.
  const BlockScores how{.visible = causal ? BlockScores::Visible::started : BlockScores::Visible::all,
                        .softmax = vote,
                        .scale = scale,
                        .width = 1,
                        .stride = 1};
  const BlockGeometry geometry{.query_block = 1, .key_block = 1, .tokens = in.k.size(1)};
  const SelectionRule rule{.top_k = file.integer("topk"), .latest = 0, .causal = causal};
  const at::Tensor indices = run.known([&] {
    return select_blocks_by(run.implementation, in.q, in.k, vote ? in.k.size(2) : heads, how, geometry, rule)
        .indices;
  });
  const IntervalAttentionOutput out = attend_listed(run, in, indices, scale);
  run.produce_sequence("o", out.o);
  run.produce("lse", out.lse);
  run.produce("count", (indices >= 0).sum(-1).repeat_interleave(heads / indices.size(1), 1));
}

}  // namespace longreach::verify
