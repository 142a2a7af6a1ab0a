#include "layers/linear.h"

#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>

#include "layers/initialization.h"

namespace longreach {

at::Tensor linear_map(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const at::ScalarType dtype = x.scalar_type();
  return at::linear(x, weight.to(dtype), bias.defined() ? bias.to(dtype) : bias);
}

Linear::Linear(int64_t in, int64_t out, double std, uint64_t seed, bool bias) {
  weight_ = register_parameter("weight", normal_parameter({out, in}, std, seed));
  if (bias) bias_ = register_parameter("bias", at::zeros({out}, at::kFloat));
}

}  // namespace longreach
