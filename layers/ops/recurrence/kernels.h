// Parameters of the CPU recurrence kernels: pointers, strides and sizes alone, no torch. op.cpp fills them
// in.
#pragma once
#include <cstdint>

#include "layers/ops/dtype.h"
#include "layers/ops/strided.h"

namespace longreach::recurrence_kernels {

enum class Decay : int32_t { kNone, kHead, kToken };

struct Sequence {
  int64_t row = 0;      // batch row
  int64_t first = 0;    // first token in the row
  int64_t tokens = 0;   // may be 0
  int64_t segment = 0;  // number of its first segment among all segments
};

// A sequence is cut into segments, a segment into chunks. The state is kept at the start of every segment;
// states at the chunks inside a segment are computed again in the backward pass.
struct Shape {
  int64_t heads = 0, key_heads = 0, value_heads = 0, dk = 0, dv = 0;
  int64_t chunk = 0;    // tokens: 16, 32, 64 or 128
  int64_t segment = 0;  // tokens, a multiple of chunk
  const Sequence* sequences = nullptr;
  int64_t sequence_count = 0, segment_count = 0;
  float scale = 1;
  DType dtype = DType::kFloat32;
  Decay decay = Decay::kNone;
  const float* log_decay = nullptr;  // kHead: [H] with stride decay_head; kToken: [row, token, head]
  int64_t decay_row = 0, decay_token = 0, decay_head = 0;
};

// Strided tensors are of Shape::dtype, here and below.
struct Forward {
  Shape shape;
  Strided q{}, k{}, v{}, o{};
  const float* initial_state = nullptr;  // [N, H, Dk, Dv] or null: zero
  float* final_state = nullptr;          // [N, H, Dk, Dv]
  float* checkpoints = nullptr;  // [segments, H, Dk, Dv]: state at the start of each segment; null: not kept
  float* segment_decays = nullptr;  // [segments, H]: work space of the split form
  bool split = false;   // segments run side by side after a scan over their sums; needs checkpoints
  bool outputs = true;  // false: final_state alone; q and o are not there
};

struct Backward {
  Shape shape;
  Strided q{}, k{}, v{}, grad_o{}, dq{}, dk{}, dv{};
  const float* checkpoints = nullptr;       // as Forward left them
  const float* grad_final_state = nullptr;  // [N, H, Dk, Dv] or null: zero
  float* grad_initial_state = nullptr;      // [N, H, Dk, Dv]
  float* d_log_decay = nullptr;    // kToken: [B, T, H] contiguous (rows of `tokens` tokens); null: not wanted
  int64_t d_decay_row = 0;         // elements of d_log_decay a row
  double* d_head_decay = nullptr;  // kHead: [segments, H], summed by the caller; null: not wanted
  float* segment_grads = nullptr;  // split form: [segments, H, Dk, Dv], gradient of the state at segment ends
  float* segment_decays = nullptr;  // split form: [segments, H]
  bool split = false;
  bool inputs = true;  // false: grad_initial_state alone, of q and grad_o; all else is not there
};

// Heads that share a key or value head are one task of the backward pass: lcm(H / HK, H / HV).
int64_t group_heads(const Shape& shape);

void forward(const Forward& params);
void backward(const Backward& params);

}  // namespace longreach::recurrence_kernels
