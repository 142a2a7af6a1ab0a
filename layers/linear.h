// y = x W^T + b. Parameters stay in their own dtype; the product runs in the dtype of x (mixed precision).
#pragma once
#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>

namespace longreach {

// x [..., in], weight [out, in], bias [out] or undefined -> [..., out] in the dtype of x.
at::Tensor linear_map(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

class Linear : public torch::nn::Module {
 public:
  // Weight drawn from normal(0, std) with `seed`, bias zero.
  Linear(int64_t in, int64_t out, double std, uint64_t seed, bool bias = false);

  at::Tensor forward(const at::Tensor& x) const { return linear_map(x, weight_, bias_); }
  const at::Tensor& weight() const { return weight_; }
  double flops() const { return 2.0 * static_cast<double>(weight_.numel()); }  // forward, a token

 private:
  at::Tensor weight_, bias_;
};

}  // namespace longreach
