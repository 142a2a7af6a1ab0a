#include "layers/basic/mlp.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>

#include "core/error.h"
#include "layers/basic/initialization.h"
#include "layers/ops/common/autograd.h"
#include "layers/ops/common/check.h"
#include "layers/ops/common/kernel_input.h"
#include "layers/ops/rows/cuda/op.h"
#include "layers/ops/rows/kernels.h"

namespace longreach {
namespace {

// float64 alone goes through plain tensor operations on the CPU.
bool runs_kernels(const at::Tensor& gate, const at::Tensor& up) {
  const at::ScalarType dtype = gate.scalar_type();
  return gate.is_cpu() && up.scalar_type() == dtype && (dtype == at::kFloat || dtype == at::kBFloat16);
}

row_kernels::Input input(const at::Tensor& x) { return {x.const_data_ptr(), kernel_dtype(x)}; }
row_kernels::Output output(const at::Tensor& x) {
  return x.defined() ? row_kernels::Output{x.mutable_data_ptr(), kernel_dtype(x)} : row_kernels::Output{};
}

at::Tensor silu_product_on_cpu(const at::Tensor& gate, const at::Tensor& up) {
  const at::Tensor g = gate.contiguous(), u = up.contiguous();
  at::Tensor y = at::empty(g.sizes(), g.options());
  row_kernels::forward(
      row_kernels::SiluProduct{.count = g.numel(), .gate = input(g), .up = input(u), .y = output(y)});
  return y;
}

Tensors silu_product_grad_on_cpu(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& dy,
                                 const std::vector<bool>& needs) {
  const at::Tensor g = gate.contiguous(), u = up.contiguous(), d = dy.contiguous();
  Tensors grads(2);
  for (size_t i = 0; i < 2; ++i)
    if (needs[i]) grads[i] = at::empty(g.sizes(), g.options());
  row_kernels::backward(row_kernels::SiluProductGradient{.count = g.numel(),
                                                         .gate = input(g),
                                                         .up = input(u),
                                                         .dy = input(d),
                                                         .dgate = output(grads[0]),
                                                         .dup = output(grads[1])});
  return grads;
}

class SiluProductOp : public FusedOp {
 public:
  std::string name() const override { return "silu_product"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    saved = inputs;
    if (runs_on_cuda(inputs[0])) return {cuda::silu_product(inputs[0], inputs[1])};
    if (runs_kernels(inputs[0], inputs[1])) return {silu_product_on_cpu(inputs[0], inputs[1])};
    return {at::silu(inputs[0]).mul_(inputs[1])};
  }

  Tensors backward(const Tensors& saved, const Tensors& grads,
                   const std::vector<bool>& needs) const override {
    Tensors result(2);
    if (!grads[0].defined()) return result;
    if (runs_on_cuda(saved[0])) {
      const auto out = cuda::silu_product_grad(saved[0], saved[1], grads[0]);
      return {out.dgate, out.dup};
    }
    if (runs_kernels(saved[0], saved[1]))
      return silu_product_grad_on_cpu(saved[0], saved[1], grads[0], needs);
    if (needs[0]) result[0] = at::silu_backward(grads[0] * saved[1], saved[0]);
    if (needs[1]) result[1] = at::silu(saved[0]).mul_(grads[0]);
    return result;
  }
};

}  // namespace

at::Tensor silu_product(const at::Tensor& gate, const at::Tensor& up) {
  expect_shape(up, "up", gate.sizes());
  return differentiable(std::make_shared<SiluProductOp>(), {gate, up})[0];
}

Mlp::Mlp(const std::string& kind, int64_t intermediate_size, const LayerSite& site)
    : activation_(kind == "swiglu") {
  check<ConfigError>(activation_ || kind == "sglu", "mlp = \"", kind, "\": expected swiglu or sglu");
  const auto make = [&](const char* name, int64_t in, int64_t out, double std) {
    return register_module(name, std::make_shared<Linear>(in, out, std, derive_seed(site.seed, name)));
  };
  gate_proj_ = make("gate_proj", site.hidden_size, intermediate_size, site.initializer_range);
  up_proj_ = make("up_proj", site.hidden_size, intermediate_size, site.initializer_range);
  down_proj_ = make("down_proj", intermediate_size, site.hidden_size, site.residual_std());
}

at::Tensor Mlp::forward(const at::Tensor& x) const {
  const at::Tensor gate = gate_proj_->forward(x), up = up_proj_->forward(x);
  return down_proj_->forward(activation_ ? silu_product(gate, up) : gate * up);
}

}  // namespace longreach
