// The gradient of the loss with respect to the logits is known as soon as the loss is (softmax minus
// one-hot), so each chunk leaves its share of d hidden and d weight behind in the forward pass and backward
// only scales them.
#include "layers/basic/loss.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "layers/ops/common/autograd.h"
#include "layers/ops/common/check.h"
#include "layers/ops/matmul/matmul.h"
#include "layers/ops/rows/rows.h"

namespace longreach {
namespace {

at::ScalarType wide_dtype(const at::Tensor& hidden) {
  return hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// Inputs hidden [N, C], weight [V, C], labels [N] (all labelled); outputs loss_sum, nll [N].
class CrossEntropyOp : public FusedOp {
 public:
  CrossEntropyOp(const CrossEntropyOptions& options, bool hidden_grad, bool weight_grad)
      : options_(options), hidden_grad_(hidden_grad), weight_grad_(weight_grad) {}

  std::string name() const override { return "chunked_cross_entropy"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    const at::Tensor &hidden = inputs[0], &weight = inputs[1], &labels = inputs[2];
    const int64_t tokens = hidden.size(0);
    const at::Tensor cast_weight = weight.to(hidden.scalar_type());
    const at::TensorOptions wide = hidden.options().dtype(wide_dtype(hidden));
    at::Tensor dhidden = hidden_grad_ ? at::zeros_like(hidden) : at::Tensor();
    at::Tensor dweight = weight_grad_ ? at::zeros_like(weight) : at::Tensor();
    at::Tensor nll = at::zeros({tokens}, wide), loss = at::zeros({}, wide.dtype(at::kDouble));
    for (int64_t begin = 0; begin < tokens; begin += options_.chunk_tokens) {
      const int64_t rows = std::min(options_.chunk_tokens, tokens - begin);
      const at::Tensor x = hidden.narrow(0, begin, rows), label = labels.narrow(0, begin, rows);
      const at::Tensor logits = matrix_product(x, cast_weight.t()), chunk_nll = nll.narrow(0, begin, rows);
      const at::Tensor dlogits =
          cross_entropy_rows(logits, label, chunk_nll, loss, options_.z_loss, hidden_grad_ || weight_grad_);
      if (!dlogits.defined()) continue;
      if (hidden_grad_) dhidden.narrow(0, begin, rows).copy_(matrix_product(dlogits, cast_weight));
      if (weight_grad_) dweight.add_(matrix_product(dlogits.t(), x));
    }
    saved = {dhidden, dweight};
    return {loss.to(wide.dtype()), nll};
  }

  Tensors backward(const Tensors& saved, const Tensors& grads,
                   const std::vector<bool>& needs) const override {
    Tensors result(3);
    for (size_t i = 0; i < 2; ++i)
      if (needs[i] && saved[i].defined() && grads[0].defined())
        result[i] = saved[i] * grads[0];  // a 0-dim factor: not rounded to bfloat16 first
    return result;
  }

 private:
  CrossEntropyOptions options_;
  bool hidden_grad_, weight_grad_;
};

void expect_arguments(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels) {
  expect_shape(hidden, "hidden", {-1, -1});
  expect_shape(weight, "weight", {-1, hidden.size(1)});
  expect_shape(labels, "labels", {hidden.size(0)});
  expect_dtype(labels, "labels", {at::kLong});
}

// Rows that carry a label; throws for labels that are neither ignored nor in the vocabulary.
at::Tensor labelled_rows(const at::Tensor& labels, int64_t vocab) {
  const at::Tensor rows = labels.ne(kIgnoredLabel).nonzero().squeeze(1);
  if (rows.numel() > 0) {
    const at::Tensor kept = labels.index_select(0, rows);
    const int64_t low = kept.min().item<int64_t>(), high = kept.max().item<int64_t>();
    check<DataError>(low >= 0 && high < vocab, "label ", low < 0 ? low : high,
                     " is outside the vocabulary of ", vocab, " tokens (", kIgnoredLabel,
                     " marks tokens without a label)");
  }
  return rows;
}

}  // namespace

CrossEntropyOutput chunked_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                         const at::Tensor& labels, const CrossEntropyOptions& options) {
  expect_arguments(hidden, weight, labels);
  check<ConfigError>(options.chunk_tokens > 0, "chunk_tokens = ", options.chunk_tokens,
                     ": expected a positive number");
  const at::Tensor rows = labelled_rows(labels, weight.size(0));
  const bool all = rows.numel() == labels.numel(), grad = at::GradMode::is_enabled();
  const auto op = std::make_shared<CrossEntropyOp>(options, grad && hidden.requires_grad(),
                                                   grad && weight.requires_grad());
  const Tensors out = differentiable(
      op, {all ? hidden : hidden.index_select(0, rows), weight, all ? labels : labels.index_select(0, rows)});
  at::Tensor nll = out[1].detach();
  if (!all) nll = at::zeros({labels.size(0)}, nll.options()).index_copy_(0, rows, nll);
  return {out[0], nll, rows.numel()};
}

CrossEntropyOutput cross_entropy_reference(const at::Tensor& hidden, const at::Tensor& weight,
                                           const at::Tensor& labels, const CrossEntropyOptions& options) {
  expect_arguments(hidden, weight, labels);
  const at::Tensor kept = labels.ne(kIgnoredLabel), safe = labels.clamp_min(0);
  const at::Tensor logits = hidden.matmul(weight.to(hidden.scalar_type()).t()).to(wide_dtype(hidden));
  const at::Tensor lse = logits.logsumexp(1);
  const at::Tensor nll = (lse - logits.gather(1, safe.unsqueeze(1)).squeeze(1)) * kept;
  return {(nll + lse.square() * kept * options.z_loss).sum(), nll.detach(), kept.sum().item<int64_t>()};
}

}  // namespace longreach
