// Parameters of the CPU kernels between the products of a decoder layer: RMSNorm and silu(gate) up, forward
// and backward, and the turn of the rotary embedding. Dense rows, float32 or bfloat16 in and out, arithmetic
// in float32; pointers and sizes alone, no torch.
#pragma once
#include <cstdint>

#include "layers/ops/dtype.h"

namespace longreach::row_kernels {

struct Input {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
};
struct Output {
  void* data = nullptr;  // null: not wanted
  DType dtype = DType::kFloat32;
};

// y = x rstd weight, rstd = 1 / sqrt(mean(x^2) + eps), for each of `rows` rows of `size`.
struct Norm {
  int64_t rows = 0, size = 0;
  Input x;
  const float* weight = nullptr;  // [size]; null: 1
  float eps = 0;
  Output y;
  float* rstd = nullptr;  // [rows]
};

// With xhat = x rstd and g = dy weight: dx = rstd (g - xhat mean(g xhat)), and dweight = sum over rows of dy
// xhat.
struct NormGradient {
  int64_t rows = 0, size = 0;
  Input x, dy;
  const float* weight = nullptr;
  const float* rstd = nullptr;
  Output dx;
  float* dweight = nullptr;  // [norm_parts(rows), size], to be added up; null: not wanted
};
// Each part adds its own rows, so that the sum does not depend on the number of threads.
int64_t norm_parts(int64_t rows);

// y = silu(gate) up, silu(g) = g / (1 + exp(-g)), element by element.
struct SiluProduct {
  int64_t count = 0;
  Input gate, up;
  Output y;
};

// With s = 1 / (1 + exp(-gate)): dgate = dy up s (1 + gate (1 - s)), dup = dy gate s.
struct SiluProductGradient {
  int64_t count = 0;
  Input gate, up, dy;
  Output dgate, dup;
};

// y1 = x1 cos - x2 sin, y2 = x2 cos + x1 sin for the two halves of each head's features. x [tokens, heads,
// 2 half] with any strides of tokens and heads, y dense, in the dtype of x; cos and sin [tokens, half].
struct Rotary {
  int64_t tokens = 0, heads = 0, half = 0;
  Input x;
  int64_t x_token = 0, x_head = 0;
  const float* cos = nullptr;
  const float* sin = nullptr;
  float direction = 1;  // -1 turns back
  Output y;
};

void forward(const Norm& params);
void backward(const NormGradient& params);
void forward(const SiluProduct& params);
void backward(const SiluProductGradient& params);
void forward(const Rotary& params);

}  // namespace longreach::row_kernels
