// Root-mean-square normalisation, with a weight (RMSNorm, arXiv 1910.07467) or without (SRMSNorm, arXiv
// 2307.14995).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>

#include "layers/basic/module.h"
#include "layers/ops/rows/rows.h"

namespace longreach {

class Norm : public Module {
 public:
  // kind: "rmsnorm" (weight, ones at first) or "srmsnorm" (no parameter).
  Norm(const std::string& kind, int64_t size, double eps);

  at::Tensor forward(const at::Tensor& x, std::optional<at::ScalarType> dtype = std::nullopt) const {
    return rms_norm(x, weight_, eps_, dtype);
  }
  const at::Tensor& weight() const { return weight_; }

 private:
  double eps_;
  at::Tensor weight_;
};

}  // namespace longreach
