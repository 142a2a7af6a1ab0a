// Dense decoding: a cache of all keys and values that grows in steps, so that a short answer under a large
// max_tokens stays small.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "core/error.h"
#include "layers/dense/module.h"

namespace longreach::dense {
namespace {

constexpr int64_t kFirstCapacity = 256;

struct KvCache : DecodeState {
  KvCache(int64_t batch_size, int64_t max_tokens) : batch(batch_size), limit(max_tokens) {}
  int64_t bytes() const override {
    return keys.defined() ? static_cast<int64_t>(keys.nbytes() + values.nbytes()) : 0;
  }
  int64_t tokens() const override { return used; }

  void append(const at::Tensor& k, const at::Tensor& v) {
    const int64_t needed = used + k.size(1);
    const int64_t capacity = keys.defined() ? keys.size(1) : 0;
    if (needed > capacity) {
      const int64_t grown = std::min(limit, std::max({needed, 2 * capacity, kFirstCapacity}));
      keys = enlarged(keys, k, grown);
      values = enlarged(values, v, grown);
    }
    keys.narrow(1, used, k.size(1)).copy_(k);
    values.narrow(1, used, k.size(1)).copy_(v);
    used = needed;
  }

  at::Tensor enlarged(const at::Tensor& old, const at::Tensor& like, int64_t capacity) const {
    at::Tensor grown = at::empty({like.size(0), capacity, like.size(2), like.size(3)}, like.options());
    if (used > 0) grown.narrow(1, 0, used).copy_(old.narrow(1, 0, used));
    return grown;
  }

  at::Tensor keys, values;  // [B, capacity, HK, D], the first `used` filled
  int64_t batch, limit, used = 0;
};

}  // namespace

std::unique_ptr<DecodeState> DenseAttention::start_decoding(int64_t batch_size, int64_t max_tokens) const {
  return std::make_unique<KvCache>(batch_size, max_tokens);
}

at::Tensor DenseAttention::decode(const at::Tensor& x, DecodeState& state) {
  const at::NoGradGuard no_grad;
  auto& cache = dynamic_cast<KvCache&>(state);
  expect_decode_input(x, cache.batch, cache.used, cache.limit);
  Heads heads = project(x, consecutive(x.size(0), cache.used, x.size(1)), cache.limit);
  cache.append(heads.k, heads.v);
  heads.k = cache.keys.narrow(1, 0, cache.used);
  heads.v = cache.values.narrow(1, 0, cache.used);
  return merge(attend(heads, {}, site_.implementation));
}

}  // namespace longreach::dense
