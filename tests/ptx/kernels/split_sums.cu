// A product of fp32 matrices by one warp as the shipped kernels make it (layers/ops/cuda/split_sums.cuh), and
// with its terms added in the wrong order.
#include "layers/ops/cuda/fragments.cuh"
#include "tests/ptx/kernels/split_sums.h"

namespace longreach::ptx {

enum class Order { small_first, large_first, into_long_sum };

template <Order O>
__device__ void product(const SplitParameters& p) {
  using cuda::Float32;
  const int lane = static_cast<int>(threadIdx.x), g = lane >> 2, t = lane & 3;
  float d[1][4] = {};
  Float32::Sums sums;
#pragma unroll 1
  for (int k = 0; k < p.depth; k += 8) {
    uint32_t a_bits[4], b_bits[2];
    for (int i = 0; i < 4; ++i)
      a_bits[i] = __float_as_uint(p.a[(g + i % 2 * 8) * p.depth + k + t + i / 2 * 4]);
    for (int i = 0; i < 2; ++i) b_bits[i] = __float_as_uint(p.b[(k + t + i * 4) * 8 + g]);
    const auto a = cuda::split_fragment(a_bits);
    const auto b = cuda::split_fragment(b_bits);
    if (O == Order::small_first) sums.add(d[0], [&](float(&sum)[4]) { Float32::multiply(sum, a, b); });
    if (O == Order::large_first)
      sums.add(d[0], [&](float(&sum)[4]) {
        Float32::multiply_high(sum, a, b);
        Float32::multiply_low(sum, a, b);
      });
    if (O == Order::into_long_sum) Float32::multiply(d[0], a, b);
  }
  for (int i = 0; i < 4; ++i) p.d[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = d[0][i];
}

extern "C" __global__ void split_small_first(const __grid_constant__ SplitParameters p) {
  product<Order::small_first>(p);
}
extern "C" __global__ void split_large_first(const __grid_constant__ SplitParameters p) {
  product<Order::large_first>(p);
}
extern "C" __global__ void split_into_long_sum(const __grid_constant__ SplitParameters p) {
  product<Order::into_long_sum>(p);
}

}  // namespace longreach::ptx
