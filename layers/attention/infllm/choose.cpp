// Which blocks a query reads: means of keys as windows, softmax-like scores, the best window of each block.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logsumexp.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "layers/attention/infllm/infllm.h"
#include "layers/ops/selection/selection.h"

namespace longreach {
namespace {

// Queries whose scores exist at a time: as many as an operator's tile, so that tiles of a sequence that ranks
// share are those of one rank.
constexpr int64_t kTile = 64;
// A coarse window is so many fine ones long, and so are the steps between them.
constexpr int64_t kCoarse = 4;

struct Windows {
  int64_t size, stride;  // in keys
  at::Tensor keys;       // [B, HK, D, M]
};

// Of `size` keys, from one stride's mean on.
Windows windows_of(const at::Tensor& means, int64_t kernel_stride, int64_t size, int64_t stride) {
  const int64_t count = size / kernel_stride;
  if (means.size(1) < count)
    return {size, stride, at::empty({means.size(0), means.size(2), means.size(3), 0}, means.options())};
  return {size, stride, means.unfold(1, count, stride / kernel_stride).mean(-1).permute({0, 2, 3, 1})};
}

// Windows that are complete for the queries at `positions` [n, 1]: bool [n, M].
at::Tensor complete(const Windows& windows, const at::Tensor& positions) {
  const at::Tensor first = at::arange(windows.keys.size(3), positions.options()) * windows.stride;
  return first + windows.size <= positions + 1;
}

// q [B, n, H, D] at positions [n, 1] -> the scores of fine windows [B, HK, n, M], summed over the heads of a
// group: exp(logit) over the sum of the coarse windows' exp, 0 where either is not complete.
at::Tensor window_scores(const at::Tensor& q, const Windows& fine, const Windows& coarse,
                         const at::Tensor& positions) {
  const int64_t kv_heads = fine.keys.size(1), group = q.size(2) / kv_heads;
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(3)));
  const at::Tensor rows = q.unflatten(2, {kv_heads, group}).permute({0, 2, 3, 1, 4}).flatten(2, 3);
  const auto logits = [&](const Windows& windows) {
    return (rows.matmul(windows.keys) * scale).unflatten(2, {group, q.size(1)});  // [B, HK, G, n, M]
  };
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const at::Tensor lse = logits(coarse)
                             .masked_fill(complete(coarse, positions).logical_not(), -kInfinity)
                             .logsumexp(-1, /*keepdim=*/true);
  const at::Tensor counted = complete(fine, positions).logical_and(positions + 1 >= coarse.size);
  return (logits(fine) - lse).exp().masked_fill(counted.logical_not(), 0.0).sum(2);
}

// The best of the windows that overlap each block: scores [B, HK, n, M] -> [B, HK, n, blocks].
at::Tensor best_windows(const at::Tensor& scores, const InfllmConfig& config, int64_t blocks) {
  const int64_t steps = config.block_size / config.kernel_stride;
  const int64_t before = config.kernel_size / config.kernel_stride - 1;
  const at::Tensor padded = at::constant_pad_nd(scores, {before, blocks * steps - scores.size(3)}, 0.0);
  return padded.unfold(3, steps + before, steps).amax(-1);
}

at::Tensor tile_choice(const at::Tensor& q, const at::Tensor& means, const InfllmConfig& config,
                       int64_t tokens) {
  const int64_t stride = config.kernel_stride, offset = tokens - q.size(1);
  const at::Tensor positions = at::arange(offset, tokens, q.options().dtype(at::kLong)).unsqueeze(1);
  const Windows fine = windows_of(means, stride, config.kernel_size, stride);
  const Windows coarse = windows_of(means, stride, kCoarse * config.kernel_size, kCoarse * stride);
  const at::Tensor scores = best_windows(window_scores(q.to(means.scalar_type()), fine, coarse, positions),
                                         config, ceil_div(tokens, config.block_size));
  return choose_blocks(
      scores, {.query_block = 1, .key_block = config.block_size, .tokens = tokens, .offset = offset},
      {.top_k = config.kept_blocks(), .first = config.first_blocks, .latest = config.latest_blocks()});
}

}  // namespace

at::Tensor infllm_stride_means(const at::Tensor& k, const InfllmConfig& config,
                               const at::Tensor& cu_seqlens) {
  const at::NoGradGuard no_grad;
  const PoolWindows strides{config.kernel_stride, config.kernel_stride, /*partial=*/false, cu_seqlens};
  const bool exact = k.scalar_type() == at::kDouble;
  return pool_blocks_by(exact ? Implementation::reference : Implementation::fused,
                        exact ? k : k.to(at::kFloat), {Pool::mean}, strides);
}

at::Tensor infllm_choose(const at::Tensor& q, const at::Tensor& means, const InfllmConfig& config,
                         int64_t tokens) {
  const at::NoGradGuard no_grad;
  const int64_t first = tokens - q.size(1);
  std::vector<at::Tensor> tiles{
      at::empty({q.size(0), means.size(2), 0, config.kept_blocks()}, q.options().dtype(at::kInt))};
  for (int64_t begin = 0; begin < q.size(1); begin += kTile) {
    const int64_t n = std::min(kTile, q.size(1) - begin), end = first + begin + n;
    tiles.push_back(
        tile_choice(q.narrow(1, begin, n), means.narrow(1, 0, end / config.kernel_stride), config, end));
  }
  return at::cat(tiles, 2);
}

}  // namespace longreach
