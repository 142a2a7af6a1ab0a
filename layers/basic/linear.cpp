#include "layers/basic/linear.h"

#include <ATen/core/grad_mode.h>

#include <cmath>
#include <string>

#include "layers/basic/initial_values.h"
#include "layers/basic/initialization.h"

namespace longreach {

Linear::Linear(int64_t in, int64_t out, double std, uint64_t seed, bool bias) {
  weight_ = register_parameter("weight", normal_parameter({out, in}, std, seed), WeightDecay::yes);
  if (bias) bias_ = register_parameter("bias", filled_parameter({out}, 0.0), WeightDecay::no);
}

void Linear::add_adapter(const AdapterOptions& options) {
  const int64_t out = weight_.size(0), in = weight_.size(1);
  adapter_ = options;
  a_ = register_module("lora_A", std::make_shared<Linear>(in, options.r, 0.0, 0));
  b_ = register_module("lora_B", std::make_shared<Linear>(options.r, out, 0.0, 0));
  const at::NoGradGuard no_grad;
  a_->weight_.copy_(uniform_parameter({options.r, in}, 1.0 / std::sqrt(static_cast<double>(in)),
                                      derive_seed(options.seed, "lora_A")));
}

std::optional<LowRank> Linear::low_rank() const {
  if (!has_adapter()) return std::nullopt;
  return LowRank{.a = a_->weight_,
                 .b = b_->weight_,
                 .scale = adapter_.scale,
                 .dropout = is_training() ? adapter_.dropout : 0.0,
                 .seed = derive_seed(adapter_.seed, std::to_string(pass_))};
}

at::Tensor Linear::merged_weight() const { return has_adapter() ? merged(weight_, *low_rank()) : weight_; }

double Linear::flops() const {
  return 2.0 * static_cast<double>(weight_.numel()) + (has_adapter() ? a_->flops() + b_->flops() : 0.0);
}

}  // namespace longreach
