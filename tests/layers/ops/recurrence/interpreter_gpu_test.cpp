// The recurrence on a device against the interpreter's result for the same inputs; see the test of that name
// of interval_attention.
#include "tests/layers/ops/recurrence/cuda_run.h"
#include "tests/support/device_fixture.h"

namespace longreach::test {
namespace {

double limit(at::ScalarType dtype) { return dtype == at::kFloat ? 5e-6 : dtype == at::kHalf ? 1e-3 : 5e-3; }

RecurrenceOutput recurrence_on_device(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const at::Tensor& log_decay, const at::Tensor& initial_state,
                                      const at::Tensor& cu_seqlens, const RecurrenceOptions& options) {
  const auto [o, state] = recurrence(on_device(q), on_device(k), on_device(v), on_device(log_decay),
                                     on_device(initial_state), cu_seqlens, options);
  return {o.to(at::kCPU), state.to(at::kCPU)};
}

TEST_F(Device, RecurrenceIsAsInterpreted) {
  for (const auto dtype : {at::kBFloat16, at::kHalf, at::kFloat})
    for (const auto decay : {DecayKind::kNone, DecayKind::kHead, DecayKind::kToken}) {
      const RecurrenceCase c{
          .tokens = 200, .heads = 4, .key_heads = 2, .value_heads = 2, .dk = 64, .dv = 96, .decay = decay};
      SCOPED_TRACE(at::toString(dtype));
      const RecurrenceInputs inputs = draw(c, dtype);
      const Named found = run(c, inputs, recurrence_on_device, false);
      CudaRun gpu;
      const Named interpreted = run_cuda(c, inputs, gpu);
      for (const auto& [name, tensor] : interpreted)
        for (const auto& [other, measured] : found)
          if (name == other) {
            EXPECT_LE(relative_error(measured, tensor), limit(dtype)) << name;
          }
    }
}

}  // namespace
}  // namespace longreach::test
