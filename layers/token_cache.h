// A cache of tokens [B, tokens, H, D] that grows in steps, so that a short answer under a large limit stays small.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace longreach {

class TokenCache {
 public:
  void append(const at::Tensor& x, int64_t limit);  // x [B, n, H, D]; limit: tokens that will ever come
  // [B, tokens, H, D]; before the first append undefined.
  at::Tensor all() const { return held_.defined() ? held_.narrow(1, 0, used_) : held_; }
  int64_t tokens() const { return used_; }
  int64_t bytes() const { return held_.defined() ? static_cast<int64_t>(held_.nbytes()) : 0; }

 private:
  at::Tensor held_;  // [B, capacity, H, D], the first used_ filled
  int64_t used_ = 0;
};

}  // namespace longreach
