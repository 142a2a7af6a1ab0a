// y = x weight^T. Its derivative is two products of the same kind, so the operator is its own backward, as
// often as one differentiates: dx = dy (weight^T)^T, dweight = dy^T (x^T)^T.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "layers/ops/common/autograd.h"
#include "layers/ops/common/kernel_input.h"
#include "layers/ops/matmul/kernels.h"
#include "layers/ops/matmul/matmul.h"

namespace longreach {
namespace {

at::Tensor differentiable_product(const at::Tensor& x, const at::Tensor& weight, bool wide = false);

std::vector<at::Tensor> few_rows_products(const at::Tensor& x, std::span<const at::Tensor> weights,
                                          at::ScalarType dtype) {
  const at::Tensor rows = x.contiguous();
  std::vector<int64_t> shape = x.sizes().vec();
  std::vector<few_rows::Product> products;
  std::vector<at::Tensor> results;
  for (const at::Tensor& weight : weights) {
    shape.back() = weight.size(0);
    const at::Tensor& y = results.emplace_back(at::empty(shape, x.options().dtype(dtype)));
    products.push_back({.rows = x.numel() / x.size(-1),
                        .in = x.size(-1),
                        .out = weight.size(0),
                        .x = rows.const_data_ptr(),
                        .weight = weight.const_data_ptr(),
                        .dtype = kernel_dtype(x),
                        .y = y.mutable_data_ptr(),
                        .y_dtype = kernel_dtype(y)});
  }
  few_rows::forward(products);
  return results;
}

// x [M, in], weight [out, in] -> [M, out]. Of the weight what is kept is the tensor that was given, whatever
// its dtype; of x nothing where the weight wants no gradient.
class LinearProductOp : public FusedOp {
 public:
  LinearProductOp(at::ScalarType dtype, bool wide, bool weight_grad)
      : dtype_(dtype), wide_(wide && dtype == at::kBFloat16), weight_grad_(weight_grad) {}

  std::string name() const override { return "linear_product"; }
  bool twice_differentiable() const override { return true; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    saved = {weight_grad_ ? inputs[0] : at::Tensor(), inputs[1]};
    const at::Tensor &x = inputs[0], weight = inputs[1].to(dtype_);
    const at::ScalarType dtype = wide_ ? at::kFloat : dtype_;
    if (has_few_rows(x, weight)) return few_rows_products(x, std::span(&weight, 1), dtype);
    return {matrix_product(x, weight.t()).to(dtype)};
  }

  Tensors backward(const Tensors& saved, const Tensors& grads,
                   const std::vector<bool>& needs) const override {
    const at::Tensor &x = saved[0], &weight = saved[1];
    Tensors result(2);
    if (!grads[0].defined()) return result;
    const at::Tensor dy = grads[0].to(dtype_);
    if (needs[0]) result[0] = differentiable_product(dy, weight.t());
    if (needs[1]) result[1] = differentiable_product(dy.t(), x.t());
    return result;
  }

 private:
  at::ScalarType dtype_;
  bool wide_, weight_grad_;
};

at::Tensor differentiable_product(const at::Tensor& x, const at::Tensor& weight, bool wide) {
  const bool weight_grad = at::GradMode::is_enabled() && weight.requires_grad();
  return differentiable(std::make_shared<LinearProductOp>(x.scalar_type(), wide, weight_grad),
                        {x, weight})[0];
}

}  // namespace

bool has_few_rows(const at::Tensor& x, const at::Tensor& weight) {
  const at::ScalarType dtype = x.scalar_type();
  return x.is_cpu() && (dtype == at::kFloat || dtype == at::kBFloat16) && weight.scalar_type() == dtype &&
         weight.is_contiguous() && x.numel() > 0 && x.numel() <= few_rows::kMostRows * x.size(-1);
}

at::Tensor linear_product(const at::Tensor& x, const at::Tensor& weight, bool wide) {
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = weight.size(0);
  return differentiable_product(rows, weight, wide).view(shape);
}

std::vector<at::Tensor> few_rows_products(const at::Tensor& x, std::span<const at::Tensor> weights) {
  return few_rows_products(x, weights, x.scalar_type());
}

}  // namespace longreach
