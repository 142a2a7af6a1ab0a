// Cases of the merge: block-sparse attention cut into key partitions.
#include <ATen/ops/arange.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/stack.h>

#include <algorithm>

#include "layers/ops/merge/merge.h"
#include "train/verify/case.h"
#include "train/verify/operators.h"

namespace longreach::verify {
namespace {

using Output = IntervalAttentionOutput;

// Blocks that a query's block reads: the latest local_blocks, and every vert_stride-th, which ones differs by
// kv head.
struct Pattern {
  int64_t block_size, local_blocks, vert_stride, heads;

  // The first block of a head's strides.
  int64_t first_vertical(int64_t head) const {
    const int64_t step = std::max<int64_t>(1, vert_stride / heads);
    return (vert_stride - head * step % vert_stride) % vert_stride;
  }
};

Pattern read_pattern(const Case& run, int64_t kv_heads) {
  const Pattern pattern{.block_size = run.file.integer("block_size"),
                        .local_blocks = run.file.integer("local_blocks"),
                        .vert_stride = run.file.integer("vert_stride"),
                        .heads = kv_heads};
  if (pattern.block_size < 1 || pattern.local_blocks < 1 || pattern.vert_stride < 1)
    run.refuse("block_size, local_blocks and vert_stride must be at least 1");
  for (const char* key :
       {"head_sliding_offset", "head_sliding_step", "homo_head", "num_dense_heads", "causal"})
    if (run.file.config().contains(key)) run.refuse("config of `lse_merge`: `", key, "` is unknown");
  return pattern;
}

using Interval = std::pair<at::Tensor, at::Tensor>;  // lo, hi: [H, T], or [T] for all heads

// The pattern as disjoint intervals: the local one, then the n-th vertical block of every head, for the rows
// to which that block is not local.
std::vector<Interval> block_sparse_intervals(const Pattern& pattern, int64_t tokens, int64_t heads) {
  const at::Tensor at = at::arange(tokens, at::kLong), row = at.div(pattern.block_size, "floor");
  std::vector<Interval> intervals = {
      {row.sub(pattern.local_blocks - 1).clamp_min(0).mul(pattern.block_size), at.add(1)}};
  for (int64_t turn = 0; turn * pattern.vert_stride * pattern.block_size < tokens; ++turn) {
    std::vector<at::Tensor> lo, hi;
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t vertical =
          pattern.first_vertical(head * pattern.heads / heads) + turn * pattern.vert_stride;
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

}  // namespace

Output merge(const Case& run, const std::vector<Output>& parts) {
  if (parts.size() == 1) return parts.front();
  return merge_attention_by(run.implementation, parts);
}

void verify_lse_merge(Case& run) {
  const Qkv in = read_qkv(run);
  const int64_t tokens = in.q.size(1);
  const double scale = run.file.scale(in.q.size(3));
  const Pattern pattern = read_pattern(run, in.k.size(2));
  const auto intervals = block_sparse_intervals(pattern, tokens, in.q.size(2));
  std::vector<int64_t> bounds = run.file.integers("cuts");
  bounds.insert(bounds.begin(), 0);
  bounds.push_back(tokens);
  if (!std::is_sorted(bounds.begin(), bounds.end())) run.refuse("cuts must rise within 0 and ", tokens);
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

}  // namespace longreach::verify
