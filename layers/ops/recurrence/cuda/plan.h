// Launch plans of the CUDA recurrence: shapes and device pointers to kernel launches, as plain data. No torch
// and no CUDA header, so that the launcher and the PTX tests start the very same kernels with the very same
// arguments.
//
// Of kernels.h, Shape, Forward and Backward are used as they are, with these differences on CUDA: every
// pointer but Shape::sequences is a device pointer; chunk and segment are 64 tokens and segment_count counts
// them; a checkpoint is [rows, columns] with Dk and Dv padded to multiples of 16 (checkpoint_bytes); the
// split form, segment_decays and segment_grads are not used: all chunks always run side by side.
//
// Kernels (recurrence_X; T: bf16, fp16, fp32), in the order of a plan:
//   forward   decay_tables, sums_T, scan, output_T [but for final states alone]
//   backward  decay_tables, [sums_T, scan when no checkpoints were kept,] sums_T, scan (reverse),
//             grad_query_T, grad_key_T, grad_value_T, [decay_gradient when wanted]; for gradients of initial
//             states alone decay_tables, sums_T, scan (reverse)
//   step      step_T
// Built: Dk 1 to 256 and Dv 1 to 512, in slices of 64 of which only steps of 16 are computed; bfloat16,
// float16, float32; sm_80 and later.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "layers/ops/cuda/launch.h"
#include "layers/ops/recurrence/cuda/params.h"
#include "layers/ops/recurrence/kernels.h"

namespace longreach::recurrence_cuda {

using recurrence_kernels::Backward;
using recurrence_kernels::Decay;
using recurrence_kernels::Forward;
using recurrence_kernels::Sequence;
using recurrence_kernels::Shape;

// The chunks and the sequences' ranges of them, to be copied to the device (DeviceMemory::lists).
std::vector<std::byte> make_lists(const Shape& shape);

int64_t count_chunks(const Shape& shape);
size_t checkpoint_bytes(const Shape& shape);            // of Forward::checkpoints
size_t forward_workspace_bytes(const Forward& params);  // holds the states too when checkpoints is null
size_t backward_workspace_bytes(const Backward& params);

struct DeviceMemory {  // both 256-byte aligned
  const void* lists = nullptr;
  void* workspace = nullptr;
};

// Throw ShapeError or DtypeError that names what was found and what is built. Where Backward::checkpoints is
// null, the states are computed again from initial_state, into the workspace: one more pass over k and v,
// nothing kept between forward and backward. dk and dv are summed over the heads that share them in the order
// of the heads; d_head_decay is [chunks, H], for the caller to sum. Every result has the same bits in every
// run.
std::vector<cuda::Launch> plan_forward(const Forward& params, const DeviceMemory& memory);
std::vector<cuda::Launch> plan_backward(const Backward& params, const DeviceMemory& memory,
                                        const float* initial_state = nullptr);

// One token for every row of a batch: state <- exp(log_decay) state + k v^T, o = scale q^T state.
// Strided::token is not used.
struct Step {
  int64_t batch = 0, heads = 0, key_heads = 0, value_heads = 0, dk = 0, dv = 0;
  DType dtype = DType::kFloat32;
  float scale = 1;
  Strided q{}, k{}, v{}, o{};        // [B, H, Dk], [B, HK, Dk], [B, HV, Dv], [B, H, Dv]
  const float* log_decay = nullptr;  // element [b * decay_row + h * decay_head]; null: no decay
  int64_t decay_row = 0, decay_head = 0;
  const float* state = nullptr;  // [B, H, Dk, Dv]
  float* new_state = nullptr;    // may be state
};
std::vector<cuda::Launch> plan_step(const Step& params);

}  // namespace longreach::recurrence_cuda
