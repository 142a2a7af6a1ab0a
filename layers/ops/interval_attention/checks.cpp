// Argument checks of interval attention.
#include "layers/ops/interval_attention/checks.h"

#include <limits>

#include "layers/ops/check.h"

namespace longreach {
namespace {

constexpr int64_t kMaxQk = 256, kMaxV = 512;

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
  check<ShapeError>(keys <= std::numeric_limits<int32_t>::max() - 64, "k: ", keys,
                    " tokens, expected fewer than 2^31 - 64");
  if (mask.lo.defined() || mask.hi.defined()) check_explicit_intervals(mask, batch, heads, queries);
  if (!mask.cu_seqlens_q.defined() && !mask.cu_seqlens_k.defined()) return;
  expect_defined(mask.cu_seqlens_q, "cu_seqlens_q (cu_seqlens_k is given)");
  expect_defined(mask.cu_seqlens_k, "cu_seqlens_k (cu_seqlens_q is given)");
  check<ShapeError>(batch == 1, "q: ", batch, " batch entries, expected 1 with cu_seqlens");
  expect_cu_seqlens(mask.cu_seqlens_q, "cu_seqlens_q", queries);
  expect_cu_seqlens(mask.cu_seqlens_k, "cu_seqlens_k", keys);
  expect_shape(mask.cu_seqlens_k, "cu_seqlens_k", mask.cu_seqlens_q.sizes());
}

void check_interval_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const IntervalMask& mask) {
  expect_shape(q, "q", {-1, -1, -1, -1});
  const int64_t batch = q.size(0), heads = q.size(2), size = q.size(3);
  expect_shape(k, "k", {batch, -1, -1, size});
  expect_shape(v, "v", {batch, k.size(1), -1, -1});
  expect_dtype(k, "k", {q.scalar_type()});
  expect_dtype(v, "v", {q.scalar_type()});
  expect_same_device(k, "k", q, "q");
  expect_same_device(v, "v", q, "q");
  check<ShapeError>(heads >= 1, "q: 0 heads, expected at least 1");
  check<ShapeError>(size >= 1 && size <= kMaxQk, "q: head dimension ", size, ", expected 1 to ", kMaxQk);
  check<ShapeError>(v.size(3) >= 1 && v.size(3) <= kMaxV, "v: head dimension ", v.size(3), ", expected 1 to ",
                    kMaxV);
  check<ShapeError>(k.size(2) >= 1 && heads % k.size(2) == 0, "k: ", k.size(2),
                    " heads, expected a divisor of ", heads);
  check<ShapeError>(v.size(2) >= 1 && heads % v.size(2) == 0, "v: ", v.size(2),
                    " heads, expected a divisor of ", heads);
  check_interval_mask(mask, batch, heads, q.size(1), k.size(1));
}

}  // namespace longreach
