// Argument checks of interval attention.
#include "layers/ops/interval_attention/checks.h"

#include "layers/ops/common/check.h"

namespace longreach {
namespace {

void check_explicit_intervals(const IntervalMask& mask, int64_t batch, int64_t heads, int64_t queries) {
  expect_defined(mask.lo, "lo (hi is given)");
  expect_defined(mask.hi, "hi (lo is given)");
  expect_dtype(mask.lo, "lo", {at::kInt});
  expect_dtype(mask.hi, "hi", {at::kInt});
  expect_shape(mask.lo, "lo", {-1, -1, queries});
  expect_shape(mask.hi, "hi", mask.lo.sizes());
  check<ShapeError>(mask.lo.size(0) == 1 || mask.lo.size(0) == batch, "lo: ", mask.lo.size(0),
                    " batch entries, expected 1 or ", batch);
  check<ShapeError>(mask.lo.size(1) >= 1 && heads % mask.lo.size(1) == 0, "lo: ", mask.lo.size(1),
                    " heads, expected a divisor of ", heads);
}

}  // namespace

void check_interval_mask(const IntervalMask& mask, int64_t batch, int64_t heads, int64_t queries,
                         int64_t keys) {
  check<ShapeError>(mask.window >= 0, "window: ", mask.window, ", expected 0 (no limit) or more");
  check<ShapeError>(mask.sinks >= 0, "sinks: ", mask.sinks, ", expected 0 or more");
  if (mask.lo.defined() || mask.hi.defined()) check_explicit_intervals(mask, batch, heads, queries);
  expect_packed(mask.cu_seqlens_q, mask.cu_seqlens_k, batch, queries, keys);
}

void check_interval_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const IntervalMask& mask) {
  expect_attention_inputs(q, k, v);
  check_interval_mask(mask, q.size(0), q.size(2), q.size(1), k.size(1));
}

}  // namespace longreach
