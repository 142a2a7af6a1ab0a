// What a device computes against what the interpreter computes from the same plans: closer to one another
// than either has to be to float64. They differ in ptxas' contraction, the tensor cores' rounding and
// approximate functions alone.
#include "tests/layers/ops/interval_attention/cuda_cases.h"
#include "tests/support/device_fixture.h"

namespace longreach::test {
namespace {

double limit(at::ScalarType dtype) {
  return dtype == at::kFloat  ? 5e-6
         : dtype == at::kHalf ? 1e-3
                              : 5e-3;  // half of those of expect_cuda_matches
}

IntervalAttentionOutput attention_on_device(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                            const IntervalMask& mask, std::optional<double> scale) {
  IntervalMask there = mask;
  there.lo = on_device(mask.lo), there.hi = on_device(mask.hi);
  const auto [o, lse] = interval_attention(on_device(q), on_device(k), on_device(v), there, scale);
  return {o.to(at::kCPU), lse.to(at::kCPU)};
}

void expect_as_interpreted(const AttentionCase& c, at::ScalarType dtype) {
  SCOPED_TRACE(text(c.name(), ' ', at::toString(dtype)));
  const AttentionResult found = run_attention(c, attention_on_device, dtype, dtype);
  // The interpreter knows instructions of sm_80 and sm_90a; other devices run the kernels of sm_80.
  const CudaRun same{.options = {.multiprocessors = cuda::backend().multiprocessors(),
                                 .architecture = cuda::backend().architecture()}};
  const CudaResult interpreted = run_cuda(c, dtype, same);
  const char* names[] = {"o", "lse", "dq", "dk", "dv"};
  for (size_t i = 0; i < interpreted.tensors.size(); ++i)
    EXPECT_LE(relative_error(found[i], interpreted.tensors[i]), limit(dtype)) << names[i];
}

constexpr at::ScalarType kDtypes[] = {at::kBFloat16, at::kHalf, at::kFloat};

TEST_F(Device, AttentionIsAsInterpreted) {
  for (const auto dtype : kDtypes)
    for (const int64_t size : {64, 128}) {
      AttentionCase c{.batch = 1, .queries = 200, .keys = 200, .heads = 4, .key_heads = 2, .value_heads = 2};
      c.qk_size = c.v_size = size;
      expect_as_interpreted(c, dtype);
      c.mask.window = 70, c.mask.sinks = 3;
      expect_as_interpreted(c, dtype);
    }
}

TEST_F(Device, DecodingIsAsInterpreted) {
  for (const auto dtype : kDtypes) {
    AttentionCase c{.batch = 1, .queries = 1, .keys = 700, .heads = 8, .key_heads = 2, .value_heads = 2};
    c.qk_size = c.v_size = 64;
    expect_as_interpreted(c, dtype);
  }
}

TEST_F(Device, PackedDocumentsAreAsInterpreted) {
  AttentionCase c{.batch = 1, .queries = 200, .keys = 200, .qk_size = 64, .v_size = 64};
  c.mask.cu_seqlens_q = c.mask.cu_seqlens_k = int_tensor({0, 0, 70, 70, 199, 200}, {6});
  for (const auto dtype : kDtypes) expect_as_interpreted(c, dtype);
}

}  // namespace
}  // namespace longreach::test
