// What the CPU kernels of softmax operators share in their parameters: no torch.
#pragma once
#include <cstdint>

#include "layers/ops/dtype.h"
#include "layers/ops/strided.h"

namespace longreach::softmax_tile {

inline constexpr int64_t kTile = 64;  // rows and columns of a tile of scores

// Of a backward pass.
struct Gradients {
  Strided d_o;
  const float* d_lse;                 // null, or [batches, heads, queries]
  Strided dq, dk, dv;                 // written whole
  DType key_dtype = DType::kFloat32;  // of dk and dv: that of the inputs or float32; CPUs alone read it
};

// How products of bf16 tiles are made.
enum class Bf16Product : int32_t {
  kFloat,  // tiles converted to fp32: any CPU
  kDot,    // vdpbf16ps: AVX-512-BF16
  kTiles,  // tdpbf16ps: AMX
};

// The way that is fast on this CPU, unless a test has set another.
Bf16Product bf16_product();
void set_bf16_product_for_test(Bf16Product product);

}  // namespace longreach::softmax_tile
