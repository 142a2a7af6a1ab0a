// From tensors to the parameters of kernels, the same for every operator with a softmax over keys.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include "layers/ops/common/autograd.h"
#include "layers/ops/common/kernel_input.h"
#include "layers/ops/cpu/softmax_inputs.h"

namespace longreach::softmax_tile {

// The part of an operator's Params that says where q, k, v, o [B, T, H, D] and lse [B, H, T] are.
template <class Params>
void set_tensors(Params& p, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                 const at::Tensor& o, const at::Tensor& lse) {
  p.dtype = kernel_dtype(q);
  p.bf16_product = bf16_product();
  p.batches = q.size(0), p.queries = q.size(1), p.heads = q.size(2), p.qk_size = q.size(3);
  p.keys = k.size(1), p.key_heads = k.size(2), p.value_heads = v.size(2), p.v_size = v.size(3);
  p.q = strided(q), p.k = strided(k), p.v = strided(v), p.o = strided(o);
  p.lse = lse.data_ptr<float>();
}

// dq, dk, dv, written by run(Gradients), from the gradients of o and lse, either of which may be undefined.
// key_dtype: of dk and dv. Kernels of CPUs round to it once; on CUDA they round to the dtype of k before.
template <class Run>
Tensors gradients_by(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& o,
                     const Tensors& grads, at::ScalarType key_dtype, Run run) {
  // Nothing flows through o: zeros of one row stand for all rows.
  const at::Tensor d_o = grads[0].defined() ? dense_rows(grads[0].to(q.scalar_type()))
                                            : at::zeros({1, 1, 1, v.size(3)}, q.options()).expand(o.sizes());
  const at::Tensor d_lse = grads[1].defined() ? grads[1].to(at::kFloat).contiguous() : at::Tensor();
  const at::ScalarType written = runs_on_cuda(q) ? k.scalar_type() : key_dtype;
  const auto like = [](const at::Tensor& x, at::ScalarType dtype) {
    return at::empty_like(x, x.options().dtype(dtype), at::MemoryFormat::Contiguous);
  };
  const at::Tensor dq = like(q, q.scalar_type()), dk = like(k, written), dv = like(v, written);
  run(Gradients{strided(d_o), d_lse.defined() ? d_lse.const_data_ptr<float>() : nullptr, strided(dq),
                strided(dk), strided(dv), kernel_dtype(dk)});
  return {dq, dk.to(key_dtype), dv.to(key_dtype)};
}

}  // namespace longreach::softmax_tile
