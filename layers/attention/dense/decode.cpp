// Dense decoding: a cache of all keys and values.
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "layers/attention/common/attend_decoding.h"
#include "layers/attention/common/kv_cache.h"
#include "layers/attention/dense/module.h"

namespace longreach::dense {

std::unique_ptr<DecodeState> DenseAttention::start_decoding(int64_t batch_size, int64_t max_tokens) const {
  return std::make_unique<KvCache>(batch_size, max_tokens);
}

at::Tensor DenseAttention::decode(const at::Tensor& x, DecodeState& state) {
  const at::NoGradGuard no_grad;
  auto& cache = dynamic_cast<KvCache&>(state);
  expect_decode_input(x, cache.batch, cache.used, cache.limit);
  Heads heads = project(x, next_positions(x, cache.used), cache.used + x.size(1));
  cache.append(heads.k, heads.v);
  heads.k = cache.filled_keys();
  heads.v = cache.filled_values();
  return finish(x, attend_decoding(heads, {}, site_.implementation));
}

}  // namespace longreach::dense
