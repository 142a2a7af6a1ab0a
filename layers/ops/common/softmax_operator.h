// A softmax operator without a tape: for callers that keep something else for the backward pass than its
// inputs (keys of other ranks, which are fetched again).
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

namespace longreach {

class SoftmaxOperator {
 public:
  struct Output {
    at::Tensor o, lse;     // as the operator's own
    at::Tensor block_max;  // of block attention that was asked for statistics
  };
  struct Gradients {
    at::Tensor dq;      // dtype of q
    at::Tensor dk, dv;  // float32, float64 of float64: they are one of several that are summed
  };
  virtual ~SoftmaxOperator() = default;
  // q [B, Tq, H, D], k [B, Tk, HK, D], v [B, Tk, HV, Dv]; the mask is the operator's.
  virtual Output forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const = 0;
  // d_o like o; the gradient through lse is none.
  virtual Gradients backward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Output& out,
                             const at::Tensor& d_o) const = 0;
};

// f(q, k, v) of differentiable steps. The backward pass runs it again on a tape of its own.
std::shared_ptr<const SoftmaxOperator> softmax_operator(
    std::function<SoftmaxOperator::Output(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v)> f);

}  // namespace longreach
