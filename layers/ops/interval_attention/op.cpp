// From tensors to kernels: checks, parameters, and the door to autograd.
#include <ATen/ops/empty.h>

#include <cmath>

#include "layers/ops/common/autograd.h"
#include "layers/ops/common/check.h"
#include "layers/ops/common/kernel_input.h"
#include "layers/ops/common/softmax_tensors.h"
#include "layers/ops/interval_attention/checks.h"
#include "layers/ops/interval_attention/cuda/op.h"
#include "layers/ops/interval_attention/kernels.h"

namespace longreach {
namespace {

using interval::Gradients;
using interval::Params;

// float32 and bfloat16, on CUDA float16 too, or what to use instead.
void expect_fused(const at::Tensor& q, const IntervalMask& mask) {
  check<DtypeError>(q.scalar_type() != at::kDouble,
                    "q: dtype Double, expected Float or BFloat16; "
                    "interval_attention_reference takes Double");
  expect_kernel_input(q, "q");
  if (!mask.lo.defined()) return;
  expect_same_device(mask.lo, "lo", q, "q");
  expect_same_device(mask.hi, "hi", q, "q");
}

double scale_of(const at::Tensor& q, std::optional<double> scale) {
  return scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(3))));
}

class IntervalAttention final : public FusedOp {
 public:
  // The mask's tensors: lo and hi come as inputs, bounds of documents are copied, since a caller may write to
  // its own.
  IntervalAttention(const IntervalMask& mask, double scale) : mask_(mask), scale_(scale) {
    mask_.lo = mask_.hi = at::Tensor();
    if (!mask_.cu_seqlens_q.defined()) return;
    mask_.cu_seqlens_q = mask_.cu_seqlens_q.clone();
    mask_.cu_seqlens_k = mask_.cu_seqlens_k.clone();
  }

  std::string name() const override { return "interval_attention"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    const at::Tensor q = dense_rows(inputs[0]), k = dense_rows(inputs[1]), v = dense_rows(inputs[2]);
    const at::Tensor o = at::empty({q.size(0), q.size(1), q.size(2), v.size(3)}, q.options());
    const at::Tensor lse = at::empty({q.size(0), q.size(2), q.size(1)}, q.options().dtype(at::kFloat));
    const at::Tensor lo = inputs[3].defined() ? inputs[3].contiguous() : at::Tensor(),
                     hi = inputs[4].defined() ? inputs[4].contiguous() : at::Tensor();
    const Params p = params(q, k, v, o, lse, lo, hi);
    runs_on_cuda(q) ? interval::forward_cuda(p, q) : interval::forward_cpu(p);
    saved = {q, k, v, o, lse, lo, hi};
    return {o, lse};
  }

  Tensors backward(const Tensors& saved, const Tensors& grads, const std::vector<bool>&) const override {
    Tensors result = gradients(saved, grads, saved[1].scalar_type());
    result.resize(5);  // of lo and hi: none
    return result;
  }

  // dq, dk, dv from what forward saved.
  Tensors gradients(const Tensors& saved, const Tensors& grads, at::ScalarType key_dtype) const {
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &o = saved[3], &lse = saved[4];
    return softmax_tile::gradients_by(q, k, v, o, grads, key_dtype, [&](const Gradients& gradients) {
      const Params p = params(q, k, v, o, lse, saved[5], saved[6]);
      runs_on_cuda(q) ? interval::backward_cuda(p, gradients, q) : interval::backward_cpu(p, gradients);
    });
  }

 private:
  Params params(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& o,
                const at::Tensor& lse, const at::Tensor& lo, const at::Tensor& hi) const {
    Params p{};
    softmax_tile::set_tensors(p, q, k, v, o, lse);
    p.scale = static_cast<float>(scale_);
    p.causal = mask_.causal, p.window = mask_.window, p.sinks = mask_.sinks;
    if (lo.defined()) {
      p.lo = lo.const_data_ptr<int32_t>();
      p.hi = hi.const_data_ptr<int32_t>();
      p.mask_batches = lo.size(0), p.mask_heads = lo.size(1);
    }
    p.documents = 1;
    if (mask_.cu_seqlens_q.defined()) {
      p.cu_queries = mask_.cu_seqlens_q.const_data_ptr<int32_t>();
      p.cu_keys = mask_.cu_seqlens_k.const_data_ptr<int32_t>();
      p.documents = mask_.cu_seqlens_q.numel() - 1;
    }
    return p;
  }

  IntervalMask mask_;
  double scale_;
};

// Without a tape; the backward pass gets keys and values anew.
class IntervalOperator final : public SoftmaxOperator {
 public:
  IntervalOperator(const IntervalMask& mask, std::optional<double> scale) : mask_(mask), scale_(scale) {}

  Output forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const override {
    check_interval_attention(q, k, v, mask_);
    expect_fused(q, mask_);
    Tensors saved;
    const Tensors out = op(q).forward({q, k, v, mask_.lo, mask_.hi}, saved);
    return {out[0], out[1], {}};
  }

  SoftmaxOperator::Gradients backward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const Output& out, const at::Tensor& d_o) const override {
    const auto dense = [](const at::Tensor& x) { return x.defined() ? x.contiguous() : x; };
    const Tensors found = op(q).gradients(
        {dense_rows(q), dense_rows(k), dense_rows(v), out.o, out.lse, dense(mask_.lo), dense(mask_.hi)},
        {d_o, {}}, at::kFloat);
    return {found[0], found[1], found[2]};
  }

 private:
  IntervalAttention op(const at::Tensor& q) const { return {mask_, scale_of(q, scale_)}; }

  IntervalMask mask_;
  std::optional<double> scale_;
};

}  // namespace

IntervalAttentionOutput interval_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                           const IntervalMask& mask, std::optional<double> scale) {
  check_interval_attention(q, k, v, mask);
  expect_fused(q, mask);
  auto outputs = differentiable(std::make_shared<IntervalAttention>(mask, scale_of(q, scale)),
                                {q, k, v, mask.lo, mask.hi});
  return {outputs[0], outputs[1]};
}

std::shared_ptr<const SoftmaxOperator> interval_operator(Implementation implementation,
                                                         const IntervalMask& mask,
                                                         std::optional<double> scale) {
  if (implementation == Implementation::fused) return std::make_shared<IntervalOperator>(mask, scale);
  return softmax_operator([mask, scale](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    const IntervalAttentionOutput out = interval_attention_reference(q, k, v, mask, scale);
    return SoftmaxOperator::Output{out.o, out.lse, {}};
  });
}

IntervalAttentionOutput interval_attention_by(Implementation implementation, const at::Tensor& q,
                                              const at::Tensor& k, const at::Tensor& v,
                                              const IntervalMask& mask, std::optional<double> scale) {
  const bool fused = implementation == Implementation::fused;
  return (fused ? interval_attention : interval_attention_reference)(q, k, v, mask, scale);
}

}  // namespace longreach
