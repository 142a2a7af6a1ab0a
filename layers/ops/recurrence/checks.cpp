#include "layers/ops/recurrence/checks.h"

#include "layers/ops/common/check.h"
#include "layers/ops/common/kernel_input.h"

namespace longreach {
namespace {

void expect_inputs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  expect_kernel_input(q, "recurrence: q");
  expect_shape(q, "recurrence: q", {-1, -1, -1, -1});
  const int64_t batch = q.size(0), tokens = q.size(1), heads = q.size(2);
  check<ShapeError>(heads >= 1, "recurrence: q: shape ", q.sizes(), ", expected at least one head");
  check<ShapeError>(q.size(3) >= 1 && q.size(3) <= 256, "recurrence: q: Dk = ", q.size(3),
                    ", expected 1 to 256");
  const auto check_heads = [&](const at::Tensor& x, const char* name, int64_t dim) {
    expect_dtype(x, name, {q.scalar_type()});
    expect_shape(x, name, {batch, tokens, -1, dim});
    expect_same_device(x, name, q, "q");
    check<ShapeError>(x.size(2) >= 1 && heads % x.size(2) == 0, name, ": ", x.size(2),
                      " heads, expected a divisor of the ", heads, " of q");
  };
  check_heads(k, "recurrence: k", q.size(3));
  check_heads(v, "recurrence: v", -1);
  check<ShapeError>(v.size(3) >= 1 && v.size(3) <= 512, "recurrence: v: Dv = ", v.size(3),
                    ", expected 1 to 512");
}

void expect_decay(const at::Tensor& log_decay, const at::Tensor& q) {
  expect_dtype(log_decay, "recurrence: log_decay", {at::kFloat});
  expect_same_device(log_decay, "recurrence: log_decay", q, "q");
  if (log_decay.dim() == 1)
    expect_shape(log_decay, "recurrence: log_decay", {q.size(2)});
  else
    expect_shape(log_decay, "recurrence: log_decay", {q.size(0), q.size(1), q.size(2)});
}

}  // namespace

void check_recurrence(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      const at::Tensor& log_decay, const at::Tensor& initial_state,
                      const at::Tensor& cu_seqlens, const RecurrenceOptions& options) {
  expect_inputs(q, k, v);
  const int64_t chunk = options.chunk;
  check<ShapeError>(chunk == 16 || chunk == 32 || chunk == 64 || chunk == 128, "recurrence: chunk = ", chunk,
                    ", expected 16, 32, 64 or 128");
  if (log_decay.defined()) expect_decay(log_decay, q);
  if (cu_seqlens.defined()) {
    check<ShapeError>(q.size(0) == 1, "recurrence: cu_seqlens: packed documents need one row, q has shape ",
                      q.sizes());
    expect_cu_seqlens(cu_seqlens, "recurrence: cu_seqlens", q.size(1));
  }
  if (!initial_state.defined()) return;
  const int64_t sequences = cu_seqlens.defined() ? cu_seqlens.numel() - 1 : q.size(0);
  expect_dtype(initial_state, "recurrence: initial_state", {at::kFloat});
  expect_shape(initial_state, "recurrence: initial_state", {sequences, q.size(2), q.size(3), v.size(3)});
  expect_same_device(initial_state, "recurrence: initial_state", q, "q");
}

}  // namespace longreach
