// Products of fp32 factors on tensor cores: each factor is two TF32 numbers, x = high + low, and
//
//   a b = low high + high low + high high
//
// without low low, which is below 2^-22 of a b. low has up to 12 bits, of which the tensor core reads 11:
// 2^-23 of x.
//
// Tensor cores truncate (tests/ptx/interpreter/tensor_sum.h): what an instruction adds is cut off at the last
// bit of the sum that it is added to, always toward zero. In one long sum that is half of its last bit on
// average each time, n / 2 in n, all in one direction, and small terms vanish. So the three products of a
// step have a sum of their own, small terms first, and an addition that rounds (FADD) promotes it. A step of
// 8 elements is then cut off twice at its full size (an A100 adds four products at once), one of 16 four
// times: below 2^-22 or 2^-21 of the steps' sizes, whatever their number, beside a rounding each.
#pragma once
#include "layers/ops/cuda/ptx.cuh"

namespace longreach::cuda {

// The nearest TF32 number; NaN may become a zero, which low's NaN outweighs.
__device__ __forceinline__ uint32_t high_part(uint32_t bits) { return (bits + 0x1000u) & 0xffffe000u; }
__device__ __forceinline__ uint32_t low_part(uint32_t bits, uint32_t high) {
  return __float_as_uint(__uint_as_float(bits) - __uint_as_float(high));
}

// Sums of their own, at most kChains at a time. ptxas would begin those of all tiles at once, put their
// promotion off and spill them: each begins here with the last promoted sum of its chain, times a zero that
// ptxas does not know.
template <int kChains>
class SplitSums {
 public:
  __device__ __forceinline__ SplitSums() {
    asm("mov.u32 %0, %%nctaid.z;" : "=r"(zero_));
    zero_ >>= 16;  // a grid has at most 65535 blocks there
  }
  // d += what multiply(sum) adds to a sum.
  template <class Multiply>
  __device__ __forceinline__ void add(float (&d)[4], const Multiply& multiply) {
    float(&last)[4] = last_[turn_++ % kChains];
    float step[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) step[e] = __uint_as_float(__float_as_uint(last[e]) & zero_);
    multiply(step);
#pragma unroll
    for (int e = 0; e < 4; ++e) last[e] = d[e] += step[e];
  }

 private:
  float last_[kChains][4] = {};
  uint32_t zero_;
  int turn_ = 0;  // known wherever loops are unrolled
};

// Where nothing is split: products go to the sum.
struct PlainSums {
  template <class Multiply>
  __device__ __forceinline__ void add(float (&d)[4], const Multiply& multiply) {
    multiply(d);
  }
};

}  // namespace longreach::cuda
