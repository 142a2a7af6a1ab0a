// Launch plans of the recurrence without a device: final states alone, and gradients of initial states alone,
// are the first kernels of the whole passes.
#include "layers/ops/recurrence/cuda/plan.h"

#include <gtest/gtest.h>

#include <cstring>

namespace longreach::recurrence_cuda {
namespace {

// Dense tensors at addresses that nobody reads; one sequence.
struct Problem {
  Sequence sequence{0, 0, 150, 0};
  Shape shape;
  DeviceMemory device{reinterpret_cast<void*>(0x7000000), reinterpret_cast<void*>(0x8000000)};

  explicit Problem(Decay decay) {
    shape.heads = 4, shape.key_heads = 2, shape.value_heads = 1, shape.dk = 64, shape.dv = 32;
    shape.chunk = shape.segment = kChunk, shape.segment_count = 3;
    shape.sequences = &sequence, shape.sequence_count = 1;
    shape.dtype = DType::kBFloat16, shape.decay = decay;
    shape.log_decay = reinterpret_cast<const float*>(0x9000000);
  }
  Strided view(uintptr_t address, int64_t heads, int64_t size) const {
    return {reinterpret_cast<void*>(address), 150 * heads * size, heads * size, size};
  }
  static float* floats(uintptr_t address) { return reinterpret_cast<float*>(address); }
};

std::vector<std::string> kernels(const std::vector<cuda::Launch>& launches) {
  std::vector<std::string> names;
  for (const cuda::Launch& launch : launches) names.push_back(launch.kernel);
  return names;
}

template <class Parameters>
Parameters parameters(const cuda::Launch& launch) {
  Parameters result;
  std::memcpy(&result, launch.parameters.data(), sizeof result);
  return result;
}

// decay_tables, sums and scan of a pass that stops there, and of one that goes on.
void expect_same_states(const std::vector<cuda::Launch>& alone, const std::vector<cuda::Launch>& whole) {
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(alone[i].kernel, whole[i].kernel);
    EXPECT_EQ(alone[i].grid.x, whole[i].grid.x);
    EXPECT_EQ(alone[i].grid.y, whole[i].grid.y);
  }
  const auto tables = parameters<TableParams>(alone[0]), all_tables = parameters<TableParams>(whole[0]);
  EXPECT_EQ(tables.log_decay, all_tables.log_decay);
  EXPECT_EQ(tables.tables, all_tables.tables);
  const auto sums = parameters<SumParams>(alone[1]), all_sums = parameters<SumParams>(whole[1]);
  EXPECT_EQ(sums.x.data, all_sums.x.data);
  EXPECT_EQ(sums.z.data, all_sums.z.data);
  EXPECT_EQ(sums.tables, all_sums.tables);
  EXPECT_EQ(sums.sums, all_sums.sums);
  EXPECT_EQ(sums.factor, all_sums.factor);
  EXPECT_EQ(sums.scale, all_sums.scale);
  const auto scan = parameters<ScanParams>(alone[2]), all_scan = parameters<ScanParams>(whole[2]);
  EXPECT_EQ(scan.tables, all_scan.tables);
  EXPECT_EQ(scan.sums, all_scan.sums);
  EXPECT_EQ(scan.start, all_scan.start);
  EXPECT_EQ(scan.end, all_scan.end);
  EXPECT_EQ(scan.borders, nullptr);
  EXPECT_EQ(scan.reverse, all_scan.reverse);
}

const std::vector<std::string> kStates{"recurrence_decay_tables", "recurrence_sums_bf16", "recurrence_scan"};

TEST(RecurrencePlan, FinalStatesAloneAreTheFirstKernels) {
  for (const Decay decay : {Decay::kNone, Decay::kHead, Decay::kToken}) {
    const Problem x(decay);
    Forward whole{.shape = x.shape,
                  .q = x.view(0x1000000, 4, 64),
                  .k = x.view(0x2000000, 2, 64),
                  .v = x.view(0x3000000, 1, 32),
                  .o = x.view(0x4000000, 4, 32),
                  .final_state = Problem::floats(0x5000000)};
    Forward alone = whole;
    alone.q = alone.o = {};
    alone.outputs = false;
    EXPECT_EQ(forward_workspace_bytes(alone), forward_workspace_bytes(whole));
    const auto first = plan_forward(alone, x.device), all = plan_forward(whole, x.device);
    EXPECT_EQ(kernels(first), kStates);
    ASSERT_EQ(all.size(), 4U);
    expect_same_states(first, all);
  }
}

// But for where the states of chunks lie, which only the gradient of a decay reads.
TEST(RecurrencePlan, GradientsOfInitialStatesAloneAreTheFirstKernels) {
  for (const Decay decay : {Decay::kNone, Decay::kHead, Decay::kToken}) {
    const Problem x(decay);
    Backward whole{.shape = x.shape,
                   .q = x.view(0x1000000, 4, 64),
                   .k = x.view(0x2000000, 2, 64),
                   .v = x.view(0x3000000, 1, 32),
                   .grad_o = x.view(0x4000000, 4, 32),
                   .dq = x.view(0x1100000, 4, 64),
                   .dk = x.view(0x2100000, 2, 64),
                   .dv = x.view(0x3100000, 1, 32),
                   .checkpoints = Problem::floats(0xa000000),
                   .grad_initial_state = Problem::floats(0x5000000)};
    const Backward alone{.shape = x.shape,
                         .q = whole.q,
                         .grad_o = whole.grad_o,
                         .grad_initial_state = whole.grad_initial_state,
                         .inputs = false};
    EXPECT_EQ(backward_workspace_bytes(alone), backward_workspace_bytes(whole));
    const auto first = plan_backward(alone, x.device), all = plan_backward(whole, x.device);
    EXPECT_EQ(kernels(first), kStates);
    ASSERT_EQ(all.size(), 6U);
    expect_same_states(first, all);
  }
}

}  // namespace
}  // namespace longreach::recurrence_cuda
