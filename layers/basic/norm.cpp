// RMSNorm with a hand-written gradient: it saves x and one number a row, where a taped formula would save
// several copies of x. Kernels of their own in float32 and bfloat16, plain tensor operations in float64.
#include "layers/basic/norm.h"

#include <ATen/ops/empty.h>

#include "layers/basic/initial_values.h"
#include "layers/ops/common/autograd.h"
#include "layers/ops/common/check.h"
#include "layers/ops/common/kernel_input.h"
#include "layers/ops/rows/cuda/op.h"
#include "layers/ops/rows/kernels.h"

namespace longreach {
namespace {

at::ScalarType statistics_dtype(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

bool runs_kernels(const at::Tensor& x, at::ScalarType y) {
  const auto narrow = [](at::ScalarType dtype) { return dtype == at::kFloat || dtype == at::kBFloat16; };
  return x.is_cpu() && narrow(x.scalar_type()) && narrow(y);
}

// Of a defined weight in float32, which the caller keeps.
const float* pointer_to(const at::Tensor& weight) {
  return weight.defined() ? weight.const_data_ptr<float>() : nullptr;
}

at::Tensor wide_weight(const at::Tensor& weight) {
  return weight.defined() ? weight.to(at::kFloat).contiguous() : weight;
}

int64_t rows_of(const at::Tensor& x) { return x.size(-1) == 0 ? 0 : x.numel() / x.size(-1); }

struct NormOutput {
  at::Tensor y, rstd;
};

NormOutput norm_on_cpu(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType dtype) {
  const at::Tensor dense = x.contiguous(), wide = wide_weight(weight);
  std::vector<int64_t> statistics = x.sizes().vec();
  statistics.back() = 1;
  const NormOutput out{at::empty(x.sizes(), x.options().dtype(dtype)),
                       at::empty(statistics, x.options().dtype(at::kFloat))};
  row_kernels::forward(row_kernels::Norm{.rows = rows_of(x),
                                         .size = x.size(-1),
                                         .x = {dense.const_data_ptr(), kernel_dtype(x)},
                                         .weight = pointer_to(wide),
                                         .eps = static_cast<float>(eps),
                                         .y = {out.y.mutable_data_ptr(), kernel_dtype(out.y)},
                                         .rstd = out.rstd.mutable_data_ptr<float>()});
  return out;
}

struct NormGradients {
  at::Tensor dx, dweight;
};

NormGradients norm_grad_on_cpu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rstd,
                               const at::Tensor& grad, bool needs_x, bool needs_weight) {
  const at::Tensor dense = x.contiguous(), dy = grad.contiguous(), wide = wide_weight(weight);
  const int64_t rows = rows_of(x), size = x.size(-1);
  NormGradients out;
  at::Tensor parts;
  if (needs_x) out.dx = at::empty(x.sizes(), x.options());
  if (needs_weight) parts = at::empty({row_kernels::norm_parts(rows), size}, x.options().dtype(at::kFloat));
  row_kernels::backward(
      row_kernels::NormGradient{.rows = rows,
                                .size = size,
                                .x = {dense.const_data_ptr(), kernel_dtype(x)},
                                .dy = {dy.const_data_ptr(), kernel_dtype(dy)},
                                .weight = pointer_to(wide),
                                .rstd = rstd.const_data_ptr<float>(),
                                .dx = {needs_x ? out.dx.mutable_data_ptr() : nullptr, kernel_dtype(x)},
                                .dweight = needs_weight ? parts.mutable_data_ptr<float>() : nullptr});
  if (needs_weight) out.dweight = parts.sum(0).to(weight.scalar_type());
  return out;
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
    if (runs_kernels(x, dtype_)) {
      const NormOutput out = norm_on_cpu(x, weight, eps_, dtype_);
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
    if (runs_kernels(x, dtype_)) {
      const auto out = norm_grad_on_cpu(x, weight, rstd, grads[0], needs[0], needs[1] && weight.defined());
      return {out.dx, out.dweight};
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
