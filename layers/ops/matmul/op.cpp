// y = x weight^T. Its derivative is two products of the same kind, so the operator is its own backward, as
// often as one differentiates: dx = dy (weight^T)^T, dweight = dy^T (x^T)^T.
#include "layers/ops/common/autograd.h"
#include "layers/ops/matmul/matmul.h"

namespace longreach {
namespace {

at::Tensor differentiable_product(const at::Tensor& x, const at::Tensor& weight);

// x [M, in], weight [out, in] -> [M, out].
class LinearProductOp : public FusedOp {
 public:
  std::string name() const override { return "linear_product"; }
  bool twice_differentiable() const override { return true; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    saved = inputs;
    return {matrix_product(inputs[0], inputs[1].t())};
  }

  Tensors backward(const Tensors& saved, const Tensors& grads,
                   const std::vector<bool>& needs) const override {
    const at::Tensor &x = saved[0], &weight = saved[1], &dy = grads[0];
    Tensors result(2);
    if (!dy.defined()) return result;
    if (needs[0]) result[0] = differentiable_product(dy, weight.t());
    if (needs[1]) result[1] = differentiable_product(dy.t(), x.t());
    return result;
  }
};

at::Tensor differentiable_product(const at::Tensor& x, const at::Tensor& weight) {
  return differentiable(std::make_shared<LinearProductOp>(), {x, weight})[0];
}

}  // namespace

at::Tensor linear_product(const at::Tensor& x, const at::Tensor& weight) {
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = weight.size(0);
  return differentiable_product(rows, weight).view(shape);
}

}  // namespace longreach
