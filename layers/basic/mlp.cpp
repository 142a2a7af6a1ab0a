#include "layers/basic/mlp.h"

#include "core/error.h"
#include "layers/basic/initialization.h"
#include "layers/ops/rows/rows.h"

namespace longreach {

Mlp::Mlp(const std::string& kind, int64_t intermediate_size, bool bias, const LayerSite& site)
    : activation_(kind == "swiglu") {
  check<ConfigError>(activation_ || kind == "sglu", "mlp = \"", kind, "\": expected swiglu or sglu");
  const auto make = [&](const char* name, int64_t in, int64_t out, double std) {
    return register_module(name, std::make_shared<Linear>(in, out, std, derive_seed(site.seed, name), bias));
  };
  gate_proj_ = make("gate_proj", site.hidden_size, intermediate_size, site.initializer_range);
  up_proj_ = make("up_proj", site.hidden_size, intermediate_size, site.initializer_range);
  down_proj_ = make("down_proj", intermediate_size, site.hidden_size, site.residual_std());
}

at::Tensor Mlp::forward(const at::Tensor& x) const {
  const auto both = linear_maps(x, {gate_proj_->projection(), up_proj_->projection()});
  return down_proj_->forward(activation_ ? silu_product(both[0], both[1]) : both[0] * both[1]);
}

}  // namespace longreach
