// Cases of interval attention and its merge: attention sinks, key partitions, LongLoRA's shifted groups.
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "layers/basic/rope.h"
#include "layers/ops/interval_attention/interval_attention.h"
#include "layers/ops/merge/merge.h"
#include "train/verify/runners.h"
#include "train/verify/s2_pattern.h"

namespace longreach::verify {
namespace {

using Output = IntervalAttentionOutput;

struct Qkv {
  at::Tensor q, k, v;
};

Qkv read_qkv(Case& run) { return {run.sequence("in.q"), run.sequence("in.k"), run.sequence("in.v")}; }

Output attend(const Case& run, const Qkv& in, const IntervalMask& mask, double scale) {
  return (run.fused() ? interval_attention : interval_attention_reference)(in.q, in.k, in.v, mask, scale);
}

Output merge(const Case& run, const std::vector<Output>& parts) {
  if (parts.size() == 1) return parts.front();
  return (run.fused() ? merge_attention : merge_attention_reference)(parts);
}

double scale_of(const Case& run, const at::Tensor& q) {
  return run.file.scale(q.size(-1), 1.0 / std::sqrt(static_cast<double>(q.size(-1))));
}

// lo, hi [H, T], or [T] for all heads.
IntervalMask interval(const at::Tensor& lo, const at::Tensor& hi) {
  IntervalMask mask;
  mask.lo = lo.view({1, -1, lo.size(-1)}).to(at::kInt).contiguous();
  mask.hi = hi.view({1, -1, hi.size(-1)}).to(at::kInt).contiguous();
  return mask;
}

class Rotor {
 public:
  Rotor(const Case& run, int64_t head_dim, int64_t tokens)
      : embedding_({.theta = run.file.real("rope_theta")}, head_dim, tokens) {}
  // x [B, T, H, D] turned to positions [T].
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& positions) {
    const at::ScalarType dtype = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    return rotate(x, embedding_.at(positions.view({1, -1}).expand({x.size(0), -1}), dtype));
  }

 private:
  RotaryEmbedding embedding_;
};

// StreamingLLM: positions count inside the cache of S sinks and W recent keys, so that a sink is never
// further than S + W - 1. The window's distances are the usual ones; for the sinks the query stands at min(t,
// S + W - 1).
Output cache_positions(const Case& run, const Qkv& in, int64_t sinks, int64_t window, double scale) {
  const int64_t tokens = in.q.size(1);
  const at::Tensor at = at::arange(tokens, at::kLong);
  Rotor rotor(run, in.q.size(-1), tokens);
  const at::Tensor k = rotor(in.k, at);
  const at::Tensor after_sinks = at.sub(window - 1).clamp_min(sinks), next = at.add(1);
  const Output recent =
      attend(run, {rotor(in.q, at), k, in.v}, interval(after_sinks.minimum(next), next), scale);
  const at::Tensor near = rotor(in.q, at.clamp_max(sinks + window - 1));
  const Output first =
      attend(run, {near, k, in.v}, interval(at::zeros_like(at), next.clamp_max(sinks)), scale);
  return merge(run, {first, recent});
}

// The first block of a head's strides.
int64_t first_vertical(const S2Pattern& pattern, int64_t head) {
  const int64_t shift =
      (head * pattern.head_sliding_step + pattern.head_sliding_offset) % pattern.vert_stride;
  return (pattern.vert_stride - shift) % pattern.vert_stride;
}

using Interval = std::pair<at::Tensor, at::Tensor>;  // lo, hi: [H, T], or [T] for all heads

// The pattern as disjoint intervals: the local one, then the n-th vertical block of every head, for the rows
// to which that block is not local.
std::vector<Interval> block_sparse_intervals(const S2Pattern& pattern, int64_t tokens, int64_t heads) {
  const at::Tensor at = at::arange(tokens, at::kLong), row = at.div(pattern.block_size, "floor");
  std::vector<Interval> intervals = {
      {row.sub(pattern.local_blocks - 1).clamp_min(0).mul(pattern.block_size), at.add(1)}};
  for (int64_t turn = 0; turn * pattern.vert_stride * pattern.block_size < tokens; ++turn) {
    std::vector<at::Tensor> lo, hi;
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t vertical =
          first_vertical(pattern, head * pattern.heads / heads) + turn * pattern.vert_stride;
      lo.push_back(at::full_like(at, std::min(vertical * pattern.block_size, tokens)));
      hi.push_back(lo.back() + row.sub(vertical).ge(pattern.local_blocks).to(at::kLong) * pattern.block_size);
    }
    intervals.emplace_back(at::stack(lo), at::stack(hi));
  }
  return intervals;
}

// The keys [first, last) of each interval.
Output attend_within(const Case& run, const Qkv& in, const std::vector<Interval>& intervals, int64_t first,
                     int64_t last, double scale) {
  std::vector<Output> pieces;
  for (const auto& [lo, hi] : intervals) {
    const at::Tensor from = lo.clamp(first, last);
    pieces.push_back(attend(run, in, interval(from, hi.clamp(first, last).maximum(from)), scale));
  }
  return merge(run, pieces);
}

// LongLoRA's groups for n tokens as lo [1, H, n]: the first half of the heads in groups of `group`, the
// second half in groups shifted by half of one, the first of which is half as long.
IntervalMask shifted_groups(int64_t tokens, int64_t heads, int64_t group) {
  const at::Tensor at = at::arange(tokens, at::kLong), plain = at.div(group, "floor").mul(group);
  const int64_t half = group / 2;
  const at::Tensor shifted = at.sub(half).div(group, "floor").mul(group).add(half).clamp_min(0);
  std::vector<at::Tensor> lo;
  for (int64_t head = 0; head < heads; ++head) lo.push_back(head < heads / 2 ? plain : shifted);
  IntervalMask mask;
  mask.lo = at::stack(lo).unsqueeze(0).to(at::kInt).contiguous();
  mask.hi = at.add(1).expand({1, heads, tokens}).to(at::kInt).contiguous();
  return mask;
}

}  // namespace

void run_sink_window(Case& run) {
  const std::string positions = run.file.word("positions");
  const int64_t sinks = run.file.integer("sink_size"), window = run.file.integer("recent_size");
  Qkv in = read_qkv(run);
  const int64_t tokens = in.q.size(1);
  const double scale = scale_of(run, in.q);
  const IntervalMask mask{.window = window, .sinks = sinks};
  Output out;
  if (positions == "rope_cache") {
    out = cache_positions(run, in, sinks, window, scale);
  } else if (positions == "absolute") {
    out = attend(run, in, mask, scale);
  } else if (positions == "rope_absolute") {
    Rotor rotor(run, in.q.size(-1), tokens);
    const at::Tensor at = at::arange(tokens, at::kLong);
    out = attend(run, {rotor(in.q, at), rotor(in.k, at), in.v}, mask, scale);
  } else {
    throw UnknownCase(one_line(text(run.file.path(), ": config of `sink_window`: positions `", positions,
                                    "`, known: absolute, rope_absolute, rope_cache")));
  }
  run.produce_sequence("o", out.o);
  run.produce("lse", out.lse);
  run.produce("mask", interval_mask_matrix(mask, 1, 1, tokens, tokens)[0][0]);
}

void run_lse_merge(Case& run) {
  const Qkv in = read_qkv(run);
  const int64_t tokens = in.q.size(1);
  const double scale = scale_of(run, in.q);
  const S2Pattern pattern = read_s2_pattern(run.file, in.k.size(2), in.k.size(2));
  if (!pattern.causal || pattern.num_dense_heads > 0)
    throw UnknownCase(one_line(
        text(run.file.path(), ": key partitions of a pattern that is not causal, or has dense heads")));
  const auto intervals = block_sparse_intervals(pattern, tokens, in.q.size(2));
  std::vector<int64_t> bounds = run.file.integers("cuts");
  bounds.insert(bounds.begin(), 0);
  bounds.push_back(tokens);
  if (!std::is_sorted(bounds.begin(), bounds.end()))
    throw UnknownCase(one_line(text(run.file.path(), ": cuts must rise within 0 and ", tokens)));
  std::vector<Output> parts;
  for (size_t part = 0; part + 1 < bounds.size(); ++part) {
    parts.push_back(attend_within(run, in, intervals, bounds[part], bounds[part + 1], scale));
    run.produce_sequence(text("part", part, ".o"), parts.back().o);
    run.produce(text("part", part, ".lse"), parts.back().lse);
  }
  const Output merged = merge(run, parts);
  run.produce_sequence("o", merged.o);
  run.produce("lse", merged.lse);
  run.produce_sequence("o_unsplit", attend_within(run, in, intervals, 0, tokens, scale).o);
}

void run_longlora(Case& run) {
  const VectorFile& file = run.file;
  const std::string variant = file.word("variant");
  if ((variant != "noroll" && variant != "sft") || !run.has("in.q"))
    throw UnknownCase(one_line(text(file.path(), ": config of `longlora`: variant `", variant,
                                    "`, known: operators of noroll, sft")));
  const Qkv in = read_qkv(run);
  const int64_t batch = in.q.size(0), tokens = in.q.size(1), heads = in.q.size(2),
                group = file.integer("group_size");
  if (group < 2)
    throw UnknownCase(one_line(text(file.path(), ": group_size ", group, ", allowed: at least 2")));
  const double scale = scale_of(run, in.q);
  if (!run.has("in.padding_mask"))
    return run.produce_sequence("o", attend(run, in, shifted_groups(tokens, heads, group), scale).o);
  // Groups count the valid tokens of a row; padded tokens take no part and get zero.
  const at::Tensor valid = run.integers("in.padding_mask");
  std::vector<at::Tensor> rows;
  for (int64_t row = 0; row < batch; ++row) {
    const at::Tensor where = valid[row].nonzero().flatten();
    const auto pick = [&](const at::Tensor& x) { return x.narrow(0, row, 1).index_select(1, where); };
    const Output out =
        attend(run, {pick(in.q), pick(in.k), pick(in.v)}, shifted_groups(where.numel(), heads, group), scale);
    rows.push_back(
        at::zeros({tokens, heads, out.o.size(-1)}, out.o.options()).index_copy(0, where, out.o[0]));
  }
  run.produce_sequence("o", at::stack(rows));
}

}  // namespace longreach::verify
