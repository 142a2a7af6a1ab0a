// From tensors to the kernels of rows.h, and the door to autograd. The CPU's kernels take float32 and
// bfloat16.
#include <ATen/ops/empty.h>

#include "layers/ops/common/autograd.h"
#include "layers/ops/common/check.h"
#include "layers/ops/common/kernel_input.h"
#include "layers/ops/rows/cuda/op.h"
#include "layers/ops/rows/kernels.h"
#include "layers/ops/rows/reference.h"
#include "layers/ops/rows/rows.h"

namespace longreach {
namespace {

bool kernels_take(at::ScalarType dtype) { return dtype == at::kFloat || dtype == at::kBFloat16; }

row_kernels::Input input(const at::Tensor& x) { return {x.const_data_ptr(), kernel_dtype(x)}; }
row_kernels::Output output(const at::Tensor& x) {
  return x.defined() ? row_kernels::Output{x.mutable_data_ptr(), kernel_dtype(x)} : row_kernels::Output{};
}

// Of a defined weight in float32, which the caller keeps.
const float* pointer_to(const at::Tensor& weight) {
  return weight.defined() ? weight.const_data_ptr<float>() : nullptr;
}

at::Tensor wide_weight(const at::Tensor& weight) {
  return weight.defined() ? weight.to(at::kFloat).contiguous() : weight;
}

int64_t rows_of(const at::Tensor& x) { return x.size(-1) == 0 ? 0 : x.numel() / x.size(-1); }

row_reference::Norm norm_on_cpu(const at::Tensor& x, const at::Tensor& weight, double eps,
                                at::ScalarType dtype) {
  const at::Tensor dense = x.contiguous(), wide = wide_weight(weight);
  std::vector<int64_t> statistics = x.sizes().vec();
  statistics.back() = 1;
  const row_reference::Norm out{at::empty(x.sizes(), x.options().dtype(dtype)),
                                at::empty(statistics, x.options().dtype(at::kFloat))};
  row_kernels::forward(row_kernels::Norm{.rows = rows_of(x),
                                         .size = x.size(-1),
                                         .x = input(dense),
                                         .weight = pointer_to(wide),
                                         .eps = static_cast<float>(eps),
                                         .y = output(out.y),
                                         .rstd = out.rstd.mutable_data_ptr<float>()});
  return out;
}

row_reference::NormGradients norm_grad_on_cpu(const at::Tensor& x, const at::Tensor& weight,
                                              const at::Tensor& rstd, const at::Tensor& grad, bool needs_x,
                                              bool needs_weight) {
  const at::Tensor dense = x.contiguous(), dy = grad.contiguous(), wide = wide_weight(weight);
  const int64_t rows = rows_of(x), size = x.size(-1);
  row_reference::NormGradients out;
  at::Tensor parts;
  if (needs_x) out.dx = at::empty(x.sizes(), x.options());
  if (needs_weight) parts = at::empty({row_kernels::norm_parts(rows), size}, x.options().dtype(at::kFloat));
  row_kernels::backward(
      row_kernels::NormGradient{.rows = rows,
                                .size = size,
                                .x = input(dense),
                                .dy = input(dy),
                                .weight = pointer_to(wide),
                                .rstd = rstd.const_data_ptr<float>(),
                                .dx = output(out.dx),
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
    const auto compute = runs_kernels(x) ? norm_on_cpu : row_reference::rms_norm;
    const row_reference::Norm out = compute(x, weight, eps_, dtype_);
    saved = {x, weight, out.rstd};
    return {out.y};
  }

  Tensors backward(const Tensors& saved, const Tensors& grads,
                   const std::vector<bool>& needs) const override {
    const at::Tensor &x = saved[0], &weight = saved[1], &rstd = saved[2];
    if (!grads[0].defined()) return {at::Tensor(), at::Tensor()};
    const bool needs_weight = needs[1] && weight.defined();
    if (runs_on_cuda(x)) {
      const auto out = cuda::rms_norm_grad(x, weight, rstd, grads[0], needs_weight);
      return {out.dx, out.dweight.defined() ? out.dweight.to(weight.scalar_type()) : out.dweight};
    }
    const auto compute = runs_kernels(x) ? norm_grad_on_cpu : row_reference::rms_norm_grad;
    const auto out = compute(x, weight, rstd, grads[0], needs[0], needs_weight);
    return {out.dx, out.dweight};
  }

 private:
  bool runs_kernels(const at::Tensor& x) const {
    return x.is_cpu() && kernels_take(x.scalar_type()) && kernels_take(dtype_);
  }

  double eps_;
  at::ScalarType dtype_;
};

at::Tensor silu_product_on_cpu(const at::Tensor& gate, const at::Tensor& up) {
  const at::Tensor g = gate.contiguous(), u = up.contiguous();
  at::Tensor y = at::empty(g.sizes(), g.options());
  row_kernels::forward(
      row_kernels::SiluProduct{.count = g.numel(), .gate = input(g), .up = input(u), .y = output(y)});
  return y;
}

row_reference::SiluGradients silu_product_grad_on_cpu(const at::Tensor& gate, const at::Tensor& up,
                                                      const at::Tensor& dy, bool needs_gate, bool needs_up) {
  const at::Tensor g = gate.contiguous(), u = up.contiguous(), d = dy.contiguous();
  row_reference::SiluGradients grads;
  if (needs_gate) grads.dgate = at::empty(g.sizes(), g.options());
  if (needs_up) grads.dup = at::empty(g.sizes(), g.options());
  row_kernels::backward(row_kernels::SiluProductGradient{.count = g.numel(),
                                                         .gate = input(g),
                                                         .up = input(u),
                                                         .dy = input(d),
                                                         .dgate = output(grads.dgate),
                                                         .dup = output(grads.dup)});
  return grads;
}

class SiluProductOp : public FusedOp {
 public:
  std::string name() const override { return "silu_product"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    saved = inputs;
    const at::Tensor &gate = inputs[0], &up = inputs[1];
    if (runs_on_cuda(gate)) return {cuda::silu_product(gate, up)};
    return {(runs_kernels(gate, up) ? silu_product_on_cpu : row_reference::silu_product)(gate, up)};
  }

  Tensors backward(const Tensors& saved, const Tensors& grads,
                   const std::vector<bool>& needs) const override {
    const at::Tensor &gate = saved[0], &up = saved[1], &dy = grads[0];
    if (!dy.defined()) return Tensors(2);
    if (runs_on_cuda(gate)) {
      const auto out = cuda::silu_product_grad(gate, up, dy);
      return {out.dgate, out.dup};
    }
    const auto compute = runs_kernels(gate, up) ? silu_product_grad_on_cpu : row_reference::silu_product_grad;
    const auto out = compute(gate, up, dy, needs[0], needs[1]);
    return {out.dgate, out.dup};
  }

 private:
  static bool runs_kernels(const at::Tensor& gate, const at::Tensor& up) {
    return gate.is_cpu() && up.scalar_type() == gate.scalar_type() && kernels_take(gate.scalar_type());
  }
};

at::Tensor rotate_on_cpu(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                         double direction) {
  const bool in_a_row = x.stride(3) == 1 && (x.size(0) == 1 || x.stride(0) == x.size(1) * x.stride(1));
  const at::Tensor tokens = in_a_row ? x : x.contiguous(), c = cos.contiguous(), s = sin.contiguous();
  at::Tensor y = at::empty(x.sizes(), x.options());
  row_kernels::forward(row_kernels::Rotary{.tokens = x.size(0) * x.size(1),
                                           .heads = x.size(2),
                                           .half = x.size(3) / 2,
                                           .x = input(tokens),
                                           .x_token = tokens.stride(1),
                                           .x_head = tokens.stride(2),
                                           .cos = c.const_data_ptr<float>(),
                                           .sin = s.const_data_ptr<float>(),
                                           .direction = static_cast<float>(direction),
                                           .y = output(y)});
  return y;
}

class RotateOp : public FusedOp {
 public:
  explicit RotateOp(double direction) : direction_(direction) {}

  std::string name() const override { return "rotate"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    saved = {inputs[1], inputs[2]};
    const auto turn = runs_on_cuda(inputs[0])              ? cuda::rotate
                      : runs_kernels(inputs[0], inputs[1]) ? rotate_on_cpu
                                                           : row_reference::rotate;
    return {turn(inputs[0], inputs[1], inputs[2], direction_)};
  }

  // A rotation's gradient is the rotation back, which has a gradient in turn.
  bool twice_differentiable() const override { return true; }
  Tensors backward(const Tensors& saved, const Tensors& grads,
                   const std::vector<bool>& needs) const override {
    Tensors result(3);
    if (needs[0] && grads[0].defined())
      result[0] = differentiable(std::make_shared<RotateOp>(-direction_), {grads[0], saved[0], saved[1]})[0];
    return result;
  }

 private:
  static bool runs_kernels(const at::Tensor& x, const at::Tensor& cos) {
    return x.is_cpu() && kernels_take(x.scalar_type()) && cos.scalar_type() == at::kFloat;
  }

  double direction_;
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps,
                    std::optional<at::ScalarType> dtype) {
  if (weight.defined()) expect_shape(weight, "weight", {x.size(-1)});
  return differentiable(std::make_shared<RmsNormOp>(eps, dtype.value_or(x.scalar_type())), {x, weight})[0];
}

at::Tensor silu_product(const at::Tensor& gate, const at::Tensor& up) {
  expect_shape(up, "up", gate.sizes());
  return differentiable(std::make_shared<SiluProductOp>(), {gate, up})[0];
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  expect_shape(x, "x", {cos.size(0), cos.size(1), -1, 2 * cos.size(2)});
  return differentiable(std::make_shared<RotateOp>(1.0), {x, cos, sin})[0];
}

at::Tensor cross_entropy_rows(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& nll,
                              const at::Tensor& loss, double z_loss, bool gradient) {
  if (!runs_on_cuda(logits)) return row_reference::cross_entropy(logits, labels, nll, loss, z_loss, gradient);
  cuda::cross_entropy(logits, labels, nll, loss, z_loss, gradient);
  return gradient ? logits : at::Tensor();
}

}  // namespace longreach
