// The gated feed-forward block: SwiGLU (arXiv 2002.05202) or SGLU, the same without an activation (arXiv
// 2307.14995).
#pragma once
#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <string>

#include "layers/basic/layer_site.h"
#include "layers/basic/linear.h"

namespace longreach {

class Mlp : public torch::nn::Module {
 public:
  // bias: of all three maps. kind: "swiglu", down(silu(gate x) * up x), or "sglu", down((gate x) * (up x)).
  Mlp(const std::string& kind, int64_t intermediate_size, bool bias, const LayerSite& site);

  at::Tensor forward(const at::Tensor& x) const;  // [..., C] -> [..., C]
  double flops() const { return gate_proj_->flops() + up_proj_->flops() + down_proj_->flops(); }

 private:
  bool activation_;
  std::shared_ptr<Linear> gate_proj_, up_proj_, down_proj_;
};

}  // namespace longreach
