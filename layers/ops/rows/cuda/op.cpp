// From tensors to the plans of plan.h: rows of any stride go as they are, columns must be dense.
#include "layers/ops/rows/cuda/op.h"

#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>

#include "layers/ops/common/check.h"
#include "layers/ops/common/kernel_input.h"
#include "layers/ops/cuda/backend.h"
#include "layers/ops/cuda/device_memory.h"
#include "layers/ops/rows/cuda/plan.h"

namespace longreach::cuda {
namespace {

void run(const std::vector<Launch>& plan, const at::Tensor& like) {
  const c10::DeviceGuard guard(like.device());
  backend().run(plan);
}

DType built_dtype(const at::Tensor& x, std::string_view name) {
  expect_dtype(x, name, {at::kFloat, at::kBFloat16, at::kHalf});
  return kernel_dtype(x);
}

at::Tensor dense_columns(const at::Tensor& x) {
  return x.size(-1) <= 1 || x.stride(-1) == 1 ? x : x.contiguous();
}

// [rows, last dimension]: a view where the strides allow.
at::Tensor as_rows(const at::Tensor& x) {
  const int64_t columns = x.size(-1);
  return dense_columns(x.reshape({columns == 0 ? 0 : x.numel() / columns, columns}));
}

Matrix matrix(const at::Tensor& rows) { return {rows.data_ptr(), rows.stride(0)}; }

at::Tensor contiguous_like(const at::Tensor& x, at::ScalarType dtype) {
  return at::empty(x.sizes(), x.options().dtype(dtype));
}

template <class T>
const T* pointer_or_null(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr<T>() : nullptr;
}

at::Tensor float_weight(const at::Tensor& weight, const at::Tensor& x) {
  if (!weight.defined()) return weight;
  expect_same_device(weight, "weight", x, "x");
  return weight.to(at::kFloat).contiguous();
}

}  // namespace

NormOutput rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType dtype) {
  const at::Tensor rows = as_rows(x), scale = float_weight(weight, x);
  const NormOutput out{contiguous_like(x, dtype), at::empty({rows.size(0)}, x.options().dtype(at::kFloat))};
  RmsNorm p{.rows = rows.size(0), .columns = rows.size(1)};
  p.x_dtype = built_dtype(x, "x"), p.y_dtype = built_dtype(out.y, "y");
  p.x = matrix(rows), p.y = matrix(as_rows(out.y));
  p.weight = pointer_or_null<float>(scale), p.rstd = out.rstd.mutable_data_ptr<float>();
  p.eps = static_cast<float>(eps);
  run(plan_rms_norm(p), x);
  return out;
}

NormGradients rms_norm_grad(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rstd,
                            const at::Tensor& dy, bool dweight_wanted) {
  const at::Tensor rows = as_rows(x), grad = as_rows(dy), scale = float_weight(weight, x);
  NormGradients out{contiguous_like(x, x.scalar_type()), {}};
  RmsNormGrad p{.rows = rows.size(0), .columns = rows.size(1)};
  p.x_dtype = built_dtype(x, "x"), p.y_dtype = built_dtype(dy, "grad of y");
  p.x = matrix(rows), p.dy = matrix(grad), p.dx = matrix(as_rows(out.dx));
  p.weight = pointer_or_null<float>(scale), p.rstd = rstd.const_data_ptr<float>();
  at::Tensor workspace;
  if (dweight_wanted) {
    out.dweight = at::empty({p.columns}, x.options().dtype(at::kFloat));
    workspace = device_bytes(rms_norm_workspace_bytes(p.rows, p.columns), x);
    p.dweight = out.dweight.mutable_data_ptr<float>();
    p.workspace = static_cast<float*>(workspace.mutable_data_ptr());
  }
  run(plan_rms_norm_grad(p), x);
  return out;
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, double direction) {
  const int64_t tokens = x.size(0) * x.size(1), heads = x.size(2), size = x.size(3);
  for (const at::Tensor* table : {&cos, &sin}) {
    expect_dtype(*table, "cos, sin", {at::kFloat});
    expect_same_device(*table, "cos, sin", x, "x");
  }
  const at::Tensor rows = dense_columns(x.reshape({tokens, heads, size})),
                   y = contiguous_like(x, x.scalar_type());
  const at::Tensor c = cos.contiguous(), s = sin.contiguous();
  Rotary p{.tokens = tokens, .heads = heads, .half = size / 2, .dtype = built_dtype(x, "x")};
  p.x = rows.const_data_ptr(), p.y = y.mutable_data_ptr();
  p.x_token = rows.stride(0), p.x_head = rows.stride(1), p.y_token = heads * size, p.y_head = size;
  p.cos = c.const_data_ptr<float>(), p.sin = s.const_data_ptr<float>();
  p.direction = static_cast<float>(direction);
  run(plan_rotary(p), x);
  return y;
}

namespace {

struct SiluInputs {
  at::Tensor gate, up;  // as rows
  SiluProduct params;
  SiluInputs(const at::Tensor& g, const at::Tensor& u) : gate(as_rows(g)), up(as_rows(u)) {
    expect_shape(u, "up", g.sizes());
    expect_dtype(u, "up", {g.scalar_type()});
    expect_same_device(u, "up", g, "gate");
    params.rows = gate.size(0), params.columns = gate.size(1), params.dtype = built_dtype(g, "gate");
    params.gate = matrix(gate), params.up = matrix(up);
  }
};

}  // namespace

at::Tensor silu_product(const at::Tensor& gate, const at::Tensor& up) {
  SiluInputs inputs(gate, up);
  const at::Tensor y = contiguous_like(gate, gate.scalar_type());
  inputs.params.y = matrix(as_rows(y));
  run(plan_silu_product(inputs.params), gate);
  return y;
}

SiluGradients silu_product_grad(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& dy) {
  SiluInputs inputs(gate, up);
  const SiluGradients out{contiguous_like(gate, gate.scalar_type()), contiguous_like(up, up.scalar_type())};
  const at::Tensor grad = as_rows(dy.to(gate.scalar_type()));
  inputs.params.dy = matrix(grad);
  inputs.params.dgate = matrix(as_rows(out.dgate)), inputs.params.dup = matrix(as_rows(out.dup));
  run(plan_silu_product(inputs.params), gate);
  return out;
}

void cross_entropy(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& nll,
                   const at::Tensor& loss, double z_loss, bool gradient) {
  check<ShapeError>(logits.size(1) <= 1 || logits.stride(1) == 1, "logits: strides ", logits.strides(),
                    ", expected dense rows");
  const at::Tensor classes = labels.contiguous(), lse = at::empty({logits.size(0)}, nll.options());
  CrossEntropy p{.rows = logits.size(0), .columns = logits.size(1), .dtype = built_dtype(logits, "logits")};
  p.logits = matrix(logits), p.labels = classes.const_data_ptr<int64_t>();
  p.nll = nll.mutable_data_ptr<float>(), p.lse = lse.mutable_data_ptr<float>();
  p.loss = loss.mutable_data_ptr<double>();
  p.gradient = gradient, p.z_loss = static_cast<float>(z_loss);
  run(plan_cross_entropy(p), logits);
}

}  // namespace longreach::cuda
