// As in the cross-entropy beside it, the gradient with respect to the logits is known as soon as the loss is
// (temperature times the difference of both softmaxes), so each chunk leaves its share of both gradients
// behind in the forward pass.
#include "layers/basic/divergence.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "layers/ops/common/autograd.h"
#include "layers/ops/common/check.h"
#include "layers/ops/matmul/matmul.h"

namespace longreach {
namespace {

// Inputs hidden, weight, teacher_hidden, teacher_weight; output: the sum.
class DivergenceOp : public FusedOp {
 public:
  DivergenceOp(const DivergenceOptions& options, bool hidden_grad, bool weight_grad)
      : options_(options), hidden_grad_(hidden_grad), weight_grad_(weight_grad) {}

  std::string name() const override { return "chunked_divergence"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    const at::Tensor &hidden = inputs[0], &weight = inputs[1];
    const at::ScalarType wide = hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor cast_weight = weight.to(hidden.scalar_type()),
                     teacher_weight = inputs[3].to(inputs[2].scalar_type());
    const auto log_probabilities = [&](const at::Tensor& x, const at::Tensor& head) {
      return at::log_softmax(matrix_product(x, head.t()).to(wide).div_(options_.temperature), 1);
    };
    at::Tensor dhidden = hidden_grad_ ? at::zeros_like(hidden) : at::Tensor();
    at::Tensor dweight = weight_grad_ ? at::zeros_like(weight) : at::Tensor();
    at::Tensor sum = at::zeros({}, hidden.options().dtype(at::kDouble));
    for (int64_t begin = 0; begin < hidden.size(0); begin += options_.chunk_tokens) {
      const int64_t rows = std::min(options_.chunk_tokens, hidden.size(0) - begin);
      const at::Tensor x = hidden.narrow(0, begin, rows), own = log_probabilities(x, cast_weight),
                       wanted = log_probabilities(inputs[2].narrow(0, begin, rows), teacher_weight),
                       probability = wanted.exp();
      sum.add_((wanted.sub_(own).mul_(probability)).sum(at::kDouble),
               options_.temperature * options_.temperature);
      if (!hidden_grad_ && !weight_grad_) continue;
      const at::Tensor dlogits =
          own.exp().sub_(probability).mul_(options_.temperature).to(hidden.scalar_type());
      if (hidden_grad_) dhidden.narrow(0, begin, rows).copy_(matrix_product(dlogits, cast_weight));
      if (weight_grad_) dweight.add_(matrix_product(dlogits.t(), x));
    }
    saved = {dhidden, dweight};
    return {sum.to(wide)};
  }

  Tensors backward(const Tensors& saved, const Tensors& grads,
                   const std::vector<bool>& needs) const override {
    Tensors result(4);
    for (size_t i = 0; i < 2; ++i)
      if (needs[i] && saved[i].defined() && grads[0].defined()) result[i] = saved[i] * grads[0];
    return result;
  }

 private:
  DivergenceOptions options_;
  bool hidden_grad_, weight_grad_;
};

}  // namespace

at::Tensor chunked_divergence(const at::Tensor& hidden, const at::Tensor& weight,
                              const at::Tensor& teacher_hidden, const at::Tensor& teacher_weight,
                              const DivergenceOptions& options) {
  expect_shape(hidden, "hidden", {-1, -1});
  expect_shape(weight, "weight", {-1, hidden.size(1)});
  expect_shape(teacher_hidden, "teacher_hidden", {hidden.size(0), -1});
  expect_shape(teacher_weight, "teacher_weight", {weight.size(0), teacher_hidden.size(1)});
  check<ConfigError>(options.chunk_tokens > 0, "chunk_tokens = ", options.chunk_tokens,
                     ": expected a positive number");
  check<ConfigError>(options.temperature > 0, "temperature = ", options.temperature,
                     ": expected a positive number");
  const bool grad = at::GradMode::is_enabled();
  const auto op =
      std::make_shared<DivergenceOp>(options, grad && hidden.requires_grad(), grad && weight.requires_grad());
  return differentiable(op, {hidden, weight, teacher_hidden.detach(), teacher_weight.detach()})[0];
}

}  // namespace longreach
