// The formula: every score and every pair in memory, the choice by sorting.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "layers/attention/common/softmax_attention.h"
#include "layers/attention/infllm/infllm.h"
#include "layers/ops/document.h"

namespace longreach {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// q [B, H, T, D] by the means of `size` keys from every `stride` on, complete ones: [B, H, T, M], -inf where
// the last key comes after the query.
at::Tensor logits(const at::Tensor& q, const at::Tensor& k, int64_t size, int64_t stride) {
  const int64_t tokens = k.size(2), count = tokens < size ? 0 : (tokens - size) / stride + 1;
  std::vector<at::Tensor> all;
  for (int64_t i = 0; i < count; ++i) {
    const at::Tensor mean = k.narrow(2, i * stride, size).mean(2, /*keepdim=*/true);
    const at::Tensor late = at::arange(tokens, at::kLong) < i * stride + size - 1;
    all.push_back(q.matmul(mean.transpose(2, 3))
                      .squeeze(3)
                      .div(std::sqrt(static_cast<double>(q.size(3))))
                      .masked_fill(late.to(q.device()), -kInfinity));
  }
  return all.empty() ? at::zeros({q.size(0), q.size(1), tokens, 0}, q.options()) : at::stack(all, 3);
}

// The scores of blocks [B, HK, T, blocks].
at::Tensor block_scores(const Heads& heads, const InfllmConfig& config) {
  const int64_t kv_heads = heads.k.size(2), group = heads.q.size(2) / kv_heads, tokens = heads.q.size(1);
  const at::Tensor q = heads.q.to(at::kDouble).transpose(1, 2);
  const at::Tensor k = heads.k.to(at::kDouble).repeat_interleave(group, 2).transpose(1, 2);
  const at::Tensor lse =
      logits(q, k, 4 * config.kernel_size, 4 * config.kernel_stride).logsumexp(3, /*keepdim=*/true);
  at::Tensor windows = (logits(q, k, config.kernel_size, config.kernel_stride) - lse).exp();
  windows = windows.masked_fill(lse == -kInfinity, 0.0).unflatten(1, {kv_heads, group}).sum(2);
  std::vector<at::Tensor> blocks;
  for (int64_t j = 0; j < ceil_div(tokens, config.block_size); ++j) {
    at::Tensor best = at::zeros({q.size(0), kv_heads, tokens}, q.options());
    for (int64_t i = 0; i < windows.size(3); ++i)
      if (i * config.kernel_stride + config.kernel_size > j * config.block_size &&
          i * config.kernel_stride < (j + 1) * config.block_size)
        best = at::maximum(best, windows.select(3, i));
    blocks.push_back(best);
  }
  return at::stack(blocks, 3);
}

// bool [B, H, T, T]: keys of the blocks that each query reads, up to itself.
at::Tensor visible_keys(const Heads& heads, const InfllmConfig& config) {
  const at::NoGradGuard no_grad;
  const int64_t tokens = heads.q.size(1), group = heads.q.size(2) / heads.k.size(2);
  at::Tensor scores = block_scores(heads, config);
  const at::Tensor key = at::arange(tokens, at::kLong).to(scores.device()), query = key.unsqueeze(1);
  const at::Tensor block = at::arange(scores.size(3), key.options()),
                   own = query.div(config.block_size, "floor");
  const at::Tensor forced = (block < config.first_blocks).logical_or(block > own - config.latest_blocks());
  scores = scores.masked_fill(forced, kInfinity).masked_fill(block > own, -kInfinity);
  const at::Tensor best = std::get<1>(at::sort(scores, /*stable=*/true, /*dim=*/-1, /*descending=*/true))
                              .narrow(3, 0, std::min(config.kept_blocks(), scores.size(3)));
  const at::Tensor chosen =
      at::zeros(scores.sizes(), scores.options().dtype(at::kBool)).scatter(3, best, true);
  return chosen.index_select(3, key.div(config.block_size, "floor"))
      .repeat_interleave(group, 1)
      .logical_or(query + 1 < config.dense_len)
      .logical_and(key <= query);
}

}  // namespace

at::Tensor infllm_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const InfllmConfig& config, const at::Tensor& cu_seqlens) {
  return each_document({q, k, v}, cu_seqlens, [&](const Heads& document) {
    const bool empty = document.q.size(1) == 0;
    return masked_softmax_attention(document,
                                    empty ? at::zeros({0, 0}, at::kBool) : visible_keys(document, config));
  });
}

}  // namespace longreach
