// SwiGLU's elementwise part: y = silu(gate) up, silu(x) = x sigmoid(x), and
//   dgate = dy up sigmoid (1 + gate (1 - sigmoid)),   dup = dy silu(gate)
// fp32 in registers; every operand once through memory. A block takes a row at a time.
#pragma once
#include "layers/ops/rows/cuda/rows.cuh"

namespace longreach::cuda {

__device__ __forceinline__ float sigmoid(float x) {
  return 1.0f / (1.0f + ptx::exp2_approx(-1.44269504f * x));
}
__device__ __forceinline__ float4 sigmoid(const float4& x) {
  return make_float4(sigmoid(x.x), sigmoid(x.y), sigmoid(x.z), sigmoid(x.w));
}

template <class T>
__device__ __forceinline__ void silu_product(const SiluProductParams& p) {
  const int64_t row = blockIdx.x;
  for_quads(p.columns, [&](int c) {
    const int count = p.columns - c;
    const float4 gate = load_quad(row_of<T>(p.gate, row) + c, count, p.gate.quads);
    const float4 up = load_quad(row_of<T>(p.up, row) + c, count, p.up.quads);
    store_quad(row_of<T>(p.y, row) + c, gate * sigmoid(gate) * up, count, p.y.quads);
  });
}

template <class T>
__device__ __forceinline__ void silu_product_grad(const SiluProductParams& p) {
  const int64_t row = blockIdx.x;
  for_quads(p.columns, [&](int c) {
    const int count = p.columns - c;
    const float4 gate = load_quad(row_of<T>(p.gate, row) + c, count, p.gate.quads);
    const float4 up = load_quad(row_of<T>(p.up, row) + c, count, p.up.quads);
    const float4 dy = load_quad(row_of<T>(p.dy, row) + c, count, p.dy.quads);
    const float4 s = sigmoid(gate), one = make_float4(1, 1, 1, 1);
    const float4 rest = gate * (one - s);
    store_quad(row_of<T>(p.dgate, row) + c, dy * up * s * (one - -1.0f * rest), count, p.dgate.quads);
    store_quad(row_of<T>(p.dup, row) + c, dy * gate * s, count, p.dup.quads);
  });
}

}  // namespace longreach::cuda
