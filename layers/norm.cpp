// RMSNorm with a hand-written gradient: it saves x and one number a row, where a taped formula would save
// several copies of x.
#include "layers/norm.h"

#include "layers/cuda/op.h"
#include "layers/initial_values.h"
#include "layers/ops/autograd.h"
#include "layers/ops/check.h"
#include "layers/ops/kernel_input.h"

namespace longreach {
namespace {

at::ScalarType statistics_dtype(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

class RmsNormOp : public FusedOp {
 public:
  RmsNormOp(double eps, at::ScalarType dtype) : eps_(eps), dtype_(dtype) {}

  std::string name() const override { return "rms_norm"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    const at::Tensor &x = inputs[0], &weight = inputs[1];
    if (runs_on_cuda(x)) {
      const cuda::NormOutput out = cuda::rms_norm(x, weight, eps_, dtype_);
      saved = {x, weight, out.rstd};
      return {out.y};
    }
    const at::Tensor wide = x.to(statistics_dtype(x));
    const at::Tensor rstd = wide.square().mean(-1, true).add_(eps_).rsqrt_();
    at::Tensor y = wide * rstd;
    if (weight.defined()) y.mul_(weight.to(y.scalar_type()));
    saved = {x, weight, rstd};
    return {y.to(dtype_)};
  }

  // With xhat = x rstd and g = dy weight: dx = rstd (g - xhat mean(g xhat)), dweight = sum over rows of dy
  // xhat.
  Tensors backward(const Tensors& saved, const Tensors& grads,
                   const std::vector<bool>& needs) const override {
    const at::Tensor &x = saved[0], &weight = saved[1], &rstd = saved[2];
    if (!grads[0].defined()) return {at::Tensor(), at::Tensor()};
    if (runs_on_cuda(x)) {
      const auto out = cuda::rms_norm_grad(x, weight, rstd, grads[0], needs[1] && weight.defined());
      return {out.dx, out.dweight.defined() ? out.dweight.to(weight.scalar_type()) : out.dweight};
    }
    const at::ScalarType wide = rstd.scalar_type();
    const at::Tensor xhat = x.to(wide) * rstd, dy = grads[0].to(wide);
    at::Tensor dx, dweight;
    if (needs[1] && weight.defined())
      dweight = (dy * xhat).reshape({-1, x.size(-1)}).sum(0).to(weight.scalar_type());
    if (needs[0]) {
      const at::Tensor g = weight.defined() ? dy * weight.to(wide) : dy;
      dx = (g - xhat * (g * xhat).mean(-1, true)).mul_(rstd).to(x.scalar_type());
    }
    return {dx, dweight};
  }

 private:
  double eps_;
  at::ScalarType dtype_;
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps,
                    std::optional<at::ScalarType> dtype) {
  if (weight.defined()) expect_shape(weight, "weight", {x.size(-1)});
  return differentiable(std::make_shared<RmsNormOp>(eps, dtype.value_or(x.scalar_type())), {x, weight})[0];
}

Norm::Norm(const std::string& kind, int64_t size, double eps) : eps_(eps) {
  check<ConfigError>(kind == "rmsnorm" || kind == "srmsnorm", "norm = \"", kind,
                     "\": expected rmsnorm or srmsnorm");
  if (kind == "rmsnorm")
    weight_ = register_parameter("weight", filled_parameter({size}, 1.0), WeightDecay::no);
}

}  // namespace longreach
