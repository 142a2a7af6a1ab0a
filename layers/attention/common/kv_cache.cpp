#include "layers/attention/common/kv_cache.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace longreach {
namespace {

constexpr int64_t kFirstCapacity = 256, kFirstRows = 16;

}  // namespace

at::Tensor enlarged_cache(const at::Tensor& cache, const at::Tensor& like, int64_t used, int64_t capacity) {
  std::vector<int64_t> shape = like.sizes().vec();
  shape[1] = capacity;
  at::Tensor grown = at::empty(shape, like.options());
  if (used > 0) grown.narrow(1, 0, used).copy_(cache.narrow(1, 0, used));
  return grown;
}

void GrowingRows::append(const at::Tensor& x) {
  const int64_t needed = used + x.size(1), capacity = rows.defined() ? rows.size(1) : 0;
  if (needed > capacity || !rows.defined())
    rows = enlarged_cache(rows, x, used, std::max({needed, 2 * capacity, kFirstRows}));
  rows.narrow(1, used, x.size(1)).copy_(x);
  used = needed;
}

int64_t KvCache::bytes() const {
  return keys.defined() ? static_cast<int64_t>(keys.nbytes() + values.nbytes()) : 0;
}

void KvCache::append(const at::Tensor& k, const at::Tensor& v) {
  const int64_t needed = used + k.size(1);
  const int64_t capacity = keys.defined() ? keys.size(1) : 0;
  if (needed > capacity) {
    const int64_t grown = std::min(limit, std::max({needed, 2 * capacity, kFirstCapacity}));
    keys = enlarged_cache(keys, k, used, grown);
    values = enlarged_cache(values, v, used, grown);
  }
  keys.narrow(1, used, k.size(1)).copy_(k);
  values.narrow(1, used, k.size(1)).copy_(v);
  used = needed;
}

}  // namespace longreach
