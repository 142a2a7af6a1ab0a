// Dense decoding: a cache of all keys and values.
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "layers/dense/module.h"
#include "layers/token_cache.h"

namespace longreach::dense {
namespace {

struct KvCache : DecodeState {
  KvCache(int64_t batch_size, int64_t max_tokens) : batch(batch_size), limit(max_tokens) {}
  int64_t bytes() const override { return keys.bytes() + values.bytes(); }
  int64_t tokens() const override { return keys.tokens(); }

  TokenCache keys, values;  // [B, T, HK, D]
  int64_t batch, limit;
};

}  // namespace

std::unique_ptr<DecodeState> DenseAttention::start_decoding(int64_t batch_size, int64_t max_tokens) const {
  return std::make_unique<KvCache>(batch_size, max_tokens);
}

at::Tensor DenseAttention::decode(const at::Tensor& x, DecodeState& state) {
  const at::NoGradGuard no_grad;
  auto& cache = dynamic_cast<KvCache&>(state);
  expect_decode_input(x, cache.batch, cache.tokens(), cache.limit);
  Heads heads = project(x, consecutive(x.size(0), cache.tokens(), x.size(1)), cache.limit);
  cache.keys.append(heads.k, cache.limit);
  cache.values.append(heads.v, cache.limit);
  heads.k = cache.keys.all();
  heads.v = cache.values.all();
  return merge(attend(heads, {}, site_.implementation));
}

}  // namespace longreach::dense
