#include "layers/token_cache.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace longreach {
namespace {

constexpr int64_t kFirstCapacity = 256;

}  // namespace

void TokenCache::append(const at::Tensor& x, int64_t limit) {
  const int64_t needed = used_ + x.size(1), capacity = held_.defined() ? held_.size(1) : 0;
  if (!held_.defined() || needed > capacity) {
    const int64_t grown = std::min(limit, std::max({needed, 2 * capacity, kFirstCapacity}));
    const at::Tensor larger = at::empty({x.size(0), grown, x.size(2), x.size(3)}, x.options());
    if (used_ > 0) larger.narrow(1, 0, used_).copy_(held_.narrow(1, 0, used_));
    held_ = larger;
  }
  held_.narrow(1, used_, x.size(1)).copy_(x);
  used_ = needed;
}

}  // namespace longreach
