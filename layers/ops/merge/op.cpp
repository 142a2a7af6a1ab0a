// The fused join of partial attentions: checks, and the kernels of the CPU and of CUDA behind autograd.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "layers/ops/common/autograd.h"
#include "layers/ops/common/check.h"
#include "layers/ops/common/kernel_input.h"
#include "layers/ops/cuda/run_plan.h"
#include "layers/ops/merge/cuda/plan.h"
#include "layers/ops/merge/kernels.h"
#include "layers/ops/merge/merge.h"

namespace longreach {
namespace {

using namespace merge_kernels;

Part part(const at::Tensor& o, const at::Tensor& lse) {
  Part result{.o = o.data_ptr(), .o_batch = o.stride(0), .o_token = o.stride(1), .o_head = o.stride(2)};
  if (!lse.defined()) return result;
  result.lse = static_cast<float*>(lse.data_ptr());
  result.lse_batch = lse.stride(0), result.lse_head = lse.stride(1), result.lse_token = lse.stride(2);
  return result;
}

// tensors: o and lse of each part, in turn.
Merge params(const Tensors& tensors, std::vector<Part>& parts, const Part& result) {
  const at::Tensor& o = tensors[0];
  for (size_t i = 0; i + 1 < tensors.size(); i += 2) parts.push_back(part(tensors[i], tensors[i + 1]));
  return {.batch = o.size(0),
          .tokens = o.size(1),
          .heads = o.size(2),
          .dim = o.size(3),
          .dtype = kernel_dtype(o),
          .parts = parts.data(),
          .part_count = static_cast<int64_t>(parts.size()),
          .result = result};
}

void run_forward(const Merge& p, const at::Tensor& like) {
  if (!runs_on_cuda(like)) return merge_kernels::forward(p);
  cuda::run_plan(like, [&](void* workspace) { return plan_forward(p, workspace); });
}

void run_backward(const MergeBackward& p, const at::Tensor& like) {
  if (!runs_on_cuda(like)) return merge_kernels::backward(p);
  cuda::run_plan(like, [&](void* workspace) { return plan_backward(p, workspace); });
}

class MergeOp final : public FusedOp {
 public:
  std::string name() const override { return "merge_attention"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    Tensors dense = inputs;
    for (size_t i = 0; i < dense.size(); i += 2) dense[i] = dense_rows(dense[i]);
    const at::Tensor o = at::empty(inputs[0].sizes(), inputs[0].options());
    const at::Tensor lse = at::empty(inputs[1].sizes(), inputs[1].options());
    std::vector<Part> parts;
    run_forward(params(dense, parts, part(o, lse)), o);
    saved = std::move(dense);
    saved.push_back(lse);
    return {o, lse};
  }

  Tensors backward(const Tensors& saved, const Tensors& grads, const std::vector<bool>&) const override {
    const Tensors inputs(saved.begin(), saved.end() - 1);
    const at::Tensor grad_o =
        grads[0].defined() ? dense_rows(grads[0]) : at::zeros(inputs[0].sizes(), inputs[0].options());
    Tensors results;
    std::vector<Part> parts, grad_parts;
    for (size_t i = 0; i < inputs.size(); i += 2) {
      results.push_back(at::empty(inputs[i].sizes(), inputs[i].options()));
      results.push_back(at::empty(inputs[i + 1].sizes(), inputs[i + 1].options()));
      grad_parts.push_back(part(results[i], results[i + 1]));
    }
    const at::Tensor& lse = saved.back();
    Part joined{.lse = lse.mutable_data_ptr<float>()};
    joined.lse_batch = lse.stride(0), joined.lse_head = lse.stride(1), joined.lse_token = lse.stride(2);
    run_backward({.forward = params(inputs, parts, joined),
                  .grad = part(grad_o, grads[1]),
                  .grads = grad_parts.data()},
                 grad_o);
    return results;
  }
};

}  // namespace

IntervalAttentionOutput merge_attention(const std::vector<IntervalAttentionOutput>& parts) {
  check<ShapeError>(!parts.empty(), "merge_attention: parts: none given, expected at least one");
  Tensors inputs;
  for (const auto& [o, lse] : parts) {
    expect_kernel_input(o, "merge_attention: o");
    expect_dtype(o, "merge_attention: o", {parts[0].o.scalar_type()});
    expect_shape(o, "merge_attention: o", {-1, -1, -1, -1});
    expect_shape(o, "merge_attention: o", parts[0].o.sizes());
    expect_dtype(lse, "merge_attention: lse", {at::kFloat});
    expect_shape(lse, "merge_attention: lse", {o.size(0), o.size(2), o.size(1)});
    expect_same_device(o, "merge_attention: o", parts[0].o, "the first part's o");
    expect_same_device(lse, "merge_attention: lse", parts[0].o, "the first part's o");
    inputs.push_back(o);
    inputs.push_back(lse);
  }
  const Tensors outputs = differentiable(std::make_shared<MergeOp>(), inputs);
  return {outputs[0], outputs[1]};
}

IntervalAttentionOutput merge_attention_by(Implementation implementation,
                                           const std::vector<IntervalAttentionOutput>& parts) {
  return (implementation == Implementation::fused ? merge_attention : merge_attention_reference)(parts);
}

}  // namespace longreach
