// Decoding: a cache of keys and values, and beside it the means of the strides that are complete. A query
// reads T / stride means, and blocks, whatever T is.
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "layers/attention/common/attend_decoding.h"
#include "layers/attention/common/kv_cache.h"
#include "layers/attention/infllm/module.h"

namespace longreach::infllm {
namespace {

struct InfllmCache : KvCache {
  using KvCache::KvCache;
  int64_t bytes() const override { return KvCache::bytes() + means.bytes(); }

  // Those of keys that have come since.
  void append_means(const InfllmConfig& config) {
    const int64_t first = means.used * config.kernel_stride;
    means.append(infllm_stride_means(keys.narrow(1, first, used - first), config));
  }

  GrowingRows means;
};

}  // namespace

std::unique_ptr<DecodeState> InfllmAttention::start_decoding(int64_t batch_size, int64_t max_tokens) const {
  return std::make_unique<InfllmCache>(batch_size, max_tokens);
}

at::Tensor InfllmAttention::decode(const at::Tensor& x, DecodeState& state) {
  const at::NoGradGuard no_grad;
  auto& cache = dynamic_cast<InfllmCache&>(state);
  expect_decode_input(x, cache.batch, cache.used, cache.limit);
  Heads heads = project(x, next_positions(x, cache.used), cache.used + x.size(1));
  cache.append(heads.k, heads.v);
  cache.append_means(config_);
  heads.k = cache.filled_keys();
  heads.v = cache.filled_values();
  return finish(x, attend_chosen(heads, cache.means.filled(), {}, attend_decoding));
}

}  // namespace longreach::infllm
