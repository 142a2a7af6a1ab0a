// Cosines and sines are as large as the keys, so they are made anew in backward instead of saved.
#include "layers/attention/lightning/lrpe.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/pow.h>

#include "layers/ops/common/autograd.h"
#include "layers/ops/common/vector_math.h"

namespace longreach::lightning {
namespace {

class LrpeOp : public FusedOp {
 public:
  std::string name() const override { return "lrpe"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    saved = inputs;
    const Angles angles(inputs);
    return {spread(inputs[0], angles), spread(inputs[1], angles)};
  }

  Tensors backward(const Tensors& saved, const Tensors& grads,
                   const std::vector<bool>& needs) const override {
    const Angles angles(saved);
    const int64_t features = saved[0].size(-1);
    Tensors result(4);
    at::Tensor dangle;
    for (size_t i = 0; i < 2; ++i) {
      if (!grads[i].defined()) continue;
      const at::Tensor dcos = grads[i].narrow(-1, 0, features).to(angles.cos.scalar_type());
      const at::Tensor dsin = grads[i].narrow(-1, features, features).to(angles.cos.scalar_type());
      if (needs[i]) result[i] = (dcos * angles.cos).addcmul_(dsin, angles.sin).to(saved[i].scalar_type());
      if (!needs[3]) continue;
      const at::Tensor turned = (dsin * angles.cos).addcmul_(dcos, angles.sin, -1.0).mul_(saved[i]);
      dangle = dangle.defined() ? dangle.add_(turned) : turned;
    }
    if (dangle.defined())
      result[3] =
          (dangle * angles.positions).sum(at::IntArrayRef{0, 1}).unsqueeze(1).to(saved[3].scalar_type());
    return result;
  }

 private:
  struct Angles {
    explicit Angles(const Tensors& inputs) {
      settle_vector_math();
      const at::ScalarType wide = inputs[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
      positions = inputs[2].to(inputs[0].device(), wide).unsqueeze(-1).unsqueeze(-1);
      // In float32 an angle of 10^6 radians is off by 3e-2: it is made in float64, and its cosine rounded
      // once.
      const at::Tensor angle =
          positions.to(at::kDouble) * inputs[3].to(at::kDouble).squeeze(1);  // [B, T, H, D]
      cos = angle.cos().to(wide);
      sin = angle.sin().to(wide);
    }
    at::Tensor positions, cos, sin;
  };

  static at::Tensor spread(const at::Tensor& x, const Angles& angles) {
    return at::cat({x * angles.cos, x * angles.sin}, -1).to(x.scalar_type());
  }
};

}  // namespace

std::pair<at::Tensor, at::Tensor> lrpe(const at::Tensor& q, const at::Tensor& k, const at::Tensor& positions,
                                       const at::Tensor& theta) {
  const Tensors out = differentiable(std::make_shared<LrpeOp>(), {q, k, positions, theta});
  return {out[0], out[1]};
}

at::Tensor lrpe_theta(int64_t heads, int64_t head_dim) {
  const at::Tensor exponent =
      at::arange(heads * head_dim, at::kDouble) * (-2.0 / static_cast<double>(heads * head_dim));
  return at::pow(10000.0, exponent).view({heads, 1, head_dim}).to(at::kFloat);
}

}  // namespace longreach::lightning
