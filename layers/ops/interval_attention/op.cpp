// From tensors to kernels: checks, parameters, and the door to autograd.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "layers/ops/autograd.h"
#include "layers/ops/check.h"
#include "layers/ops/interval_attention/checks.h"
#include "layers/ops/interval_attention/cuda_op.h"
#include "layers/ops/interval_attention/kernels.h"
#include "layers/ops/kernel_input.h"

namespace longreach {
namespace {

using interval::Gradients;
using interval::Params;
using interval::Strided;

Strided strided(const at::Tensor& x) { return {x.data_ptr(), x.stride(0), x.stride(1), x.stride(2)}; }

at::Tensor dense_rows(const at::Tensor& x) {
  return x.size(-1) <= 1 || x.stride(-1) == 1 ? x : x.contiguous();
}

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

class IntervalAttention final : public FusedOp {
 public:
  IntervalAttention(const IntervalMask& mask, double scale) : mask_(mask), scale_(scale) {
    if (mask_.lo.defined()) {
      mask_.lo = mask_.lo.contiguous();
      mask_.hi = mask_.hi.contiguous();
    }
  }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    const at::Tensor q = dense_rows(inputs[0]), k = dense_rows(inputs[1]), v = dense_rows(inputs[2]);
    const at::Tensor o = at::empty({q.size(0), q.size(1), q.size(2), v.size(3)}, q.options());
    const at::Tensor lse = at::empty({q.size(0), q.size(2), q.size(1)}, q.options().dtype(at::kFloat));
    const Params p = params(q, k, v, o, lse);
    runs_on_cuda(q) ? interval::forward_cuda(p, q) : interval::forward_cpu(p);
    saved = {q, k, v, o, lse};
    return {o, lse};
  }

  Tensors backward(const Tensors& saved, const Tensors& grads, const std::vector<bool>&) const override {
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &o = saved[3], &lse = saved[4];
    // Nothing flows through o: zeros of one row stand for all rows.
    const at::Tensor d_o = grads[0].defined()
                               ? dense_rows(grads[0].to(q.scalar_type()))
                               : at::zeros({1, 1, 1, v.size(3)}, q.options()).expand(o.sizes());
    const at::Tensor d_lse = grads[1].defined() ? grads[1].to(at::kFloat).contiguous() : at::Tensor();
    const auto contiguous_like = [](const at::Tensor& x) {
      return at::empty_like(x, at::MemoryFormat::Contiguous);
    };
    const at::Tensor dq = contiguous_like(q), dk = contiguous_like(k), dv = contiguous_like(v);
    const Gradients gradients{strided(d_o), d_lse.defined() ? d_lse.const_data_ptr<float>() : nullptr,
                              strided(dq), strided(dk), strided(dv)};
    const Params p = params(q, k, v, o, lse);
    runs_on_cuda(q) ? interval::backward_cuda(p, gradients, q) : interval::backward_cpu(p, gradients);
    return {dq, dk, dv};
  }

 private:
  Params params(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& o,
                const at::Tensor& lse) const {
    Params p{};
    p.dtype = kernel_dtype(q);
    p.bf16_product = interval::bf16_product();
    p.batches = q.size(0), p.queries = q.size(1), p.heads = q.size(2), p.qk_size = q.size(3);
    p.keys = k.size(1), p.key_heads = k.size(2), p.value_heads = v.size(2), p.v_size = v.size(3);
    p.scale = static_cast<float>(scale_);
    p.q = strided(q), p.k = strided(k), p.v = strided(v), p.o = strided(o);
    p.lse = lse.data_ptr<float>();
    p.causal = mask_.causal, p.window = mask_.window, p.sinks = mask_.sinks;
    if (mask_.lo.defined()) {
      p.lo = mask_.lo.const_data_ptr<int32_t>();
      p.hi = mask_.hi.const_data_ptr<int32_t>();
      p.mask_batches = mask_.lo.size(0), p.mask_heads = mask_.lo.size(1);
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

}  // namespace

IntervalAttentionOutput interval_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                           const IntervalMask& mask, std::optional<double> scale) {
  check_interval_attention(q, k, v, mask);
  expect_fused(q, mask);
  const double factor = scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(3))));
  auto outputs = differentiable(std::make_shared<IntervalAttention>(mask, factor), {q, k, v});
  return {outputs[0], outputs[1]};
}

}  // namespace longreach
