// Parameters of the CPU merge kernels: pointers and strides alone, no torch.
#pragma once
#include <cstdint>

#include "layers/ops/dtype.h"

namespace longreach::merge_kernels {

// One part, or the result: o [B, T, H, D] and lse [B, H, T]; strides in elements, D dense.
struct Part {
  void* o = nullptr;
  int64_t o_batch = 0, o_token = 0, o_head = 0;
  float* lse = nullptr;
  int64_t lse_batch = 0, lse_head = 0, lse_token = 0;
};

struct Merge {
  int64_t batch = 0, tokens = 0, heads = 0, dim = 0;
  DType dtype = DType::kFloat32;
  const Part* parts = nullptr;
  int64_t part_count = 0;
  Part result;
};

struct MergeBackward {
  Merge forward;      // with the result that it gave
  Part grad;          // of the result; lse null: nothing depends on it
  const Part* grads;  // of the parts: written
};

void forward(const Merge& params);
void backward(const MergeBackward& params);

}  // namespace longreach::merge_kernels
