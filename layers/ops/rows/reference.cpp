#include "layers/ops/rows/reference.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <ATen/ops/zeros_like.h>

#include "layers/ops/common/vector_math.h"

namespace longreach::row_reference {

Norm rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType dtype) {
  const at::Tensor wide = x.to(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  const at::Tensor rstd = wide.square().mean(-1, true).add_(eps).rsqrt_();
  at::Tensor y = wide * rstd;
  if (weight.defined()) y.mul_(weight.to(y.scalar_type()));
  return {y.to(dtype), rstd};
}

// With xhat = x rstd and g = dy weight: dx = rstd (g - xhat mean(g xhat)), dweight = sum over rows of dy
// xhat.
NormGradients rms_norm_grad(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rstd,
                            const at::Tensor& dy, bool dx_wanted, bool dweight_wanted) {
  const at::ScalarType wide = rstd.scalar_type();
  const at::Tensor xhat = x.to(wide) * rstd, grad = dy.to(wide);
  NormGradients out;
  if (dweight_wanted) out.dweight = (grad * xhat).reshape({-1, x.size(-1)}).sum(0).to(weight.scalar_type());
  if (dx_wanted) {
    const at::Tensor g = weight.defined() ? grad * weight.to(wide) : grad;
    out.dx = (g - xhat * (g * xhat).mean(-1, true)).mul_(rstd).to(x.scalar_type());
  }
  return out;
}

at::Tensor silu_product(const at::Tensor& gate, const at::Tensor& up) { return at::silu(gate).mul_(up); }

SiluGradients silu_product_grad(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& dy,
                                bool dgate_wanted, bool dup_wanted) {
  SiluGradients out;
  if (dgate_wanted) out.dgate = at::silu_backward(dy * up, gate);
  if (dup_wanted) out.dup = at::silu(gate).mul_(dy);
  return out;
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, double direction) {
  const int64_t half = x.size(-1) / 2;
  const at::Tensor c = cos.unsqueeze(2), s = sin.unsqueeze(2);
  const at::Tensor first = x.narrow(-1, 0, half), second = x.narrow(-1, half, half);
  at::Tensor y = at::empty_like(x, at::MemoryFormat::Contiguous);
  y.narrow(-1, 0, half).copy_((first * c).addcmul_(second.to(c.scalar_type()), s, -direction));
  y.narrow(-1, half, half).copy_((second * c).addcmul_(first.to(c.scalar_type()), s, direction));
  return y;
}

at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& nll,
                         const at::Tensor& loss, double z_loss, bool gradient) {
  settle_vector_math();
  at::Tensor p = logits.to(nll.scalar_type());
  const at::Tensor label = labels.unsqueeze(1), picked = p.gather(1, label), top = p.amax(1, true);
  p.sub_(top).exp_();
  const at::Tensor sum = p.sum(1, true);
  const at::Tensor lse = sum.log().add_(top);
  const at::Tensor each = lse - picked;
  nll.copy_(each.squeeze(1));
  loss.add_((each + lse.square() * z_loss).sum(at::kDouble));
  if (!gradient) return {};
  // softmax (1 + 2 z lse) - onehot, in place of the exponentials.
  p.mul_((lse * (2.0 * z_loss)).add_(1.0).div_(sum));
  p.scatter_add_(1, label, at::zeros_like(picked).sub_(1.0));
  return p.to(logits.scalar_type());
}

}  // namespace longreach::row_reference
