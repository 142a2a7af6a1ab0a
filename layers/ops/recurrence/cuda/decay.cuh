// Products of decays inside a chunk, and the gradient of each decay. A warp does one chunk of one head, a
// block 8 heads, so that tokens whose heads lie side by side are read and written in whole sectors.
//
// Numerics. Log decays are summed in float64 and kept as pairs of floats (high, low) of exponents of 2, so
// that differences of sums are exact to fp32 accuracy. A step below kForget multiplies by exactly 0 in any
// precision: it adds nothing to the sums, and what crosses it is set to 0 by its index.
#pragma once
#include "layers/ops/recurrence/cuda/tile.cuh"

namespace longreach::recurrence_cuda {

inline constexpr int kDecayHeads = 8, kDecayThreads = 32 * kDecayHeads;
inline constexpr float kForget = -1000.0f;
inline constexpr double kLog2E = 1.4426950408889634;
inline constexpr int kDecayStride = 68;  // numbers a head in shared memory: no bank conflicts either way

// Inclusive sum over lanes, from lane 0 up or (kBack) from lane 31 down.
template <bool kBack, class T>
__device__ __forceinline__ T scan_lanes(T x) {
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const T other = kBack ? __shfl_down_sync(0xffffffffu, x, step) : __shfl_up_sync(0xffffffffu, x, step);
    if (kBack ? lane() + step < 32 : lane() >= step) x += other;
  }
  return x;
}

__device__ __forceinline__ int max_lanes_up(int x) {
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, x, step);
    if (lane() >= step) x = max(x, other);
  }
  return x;
}

// Grid: chunks, groups of 8 heads.
__device__ __forceinline__ void decay_tables(const TableParams& p) {
  __shared__ float steps[kDecayHeads * kDecayStride];
  const int64_t chunk_index = blockIdx.x;
  const Chunk chunk = p.chunks[chunk_index];
  const int first = static_cast<int>(blockIdx.y) * kDecayHeads;
  for (int i = static_cast<int>(threadIdx.x); i < kDecayHeads * kChunk; i += kDecayThreads) {
    const int head = i % kDecayHeads, token = i / kDecayHeads;
    const bool inside = p.log_decay && token < chunk.tokens && first + head < p.heads;
    const int64_t offset = p.per_token ? chunk.row * p.row + (chunk.first + token) * p.token : 0;
    steps[head * kDecayStride + token] = inside ? p.log_decay[offset + (first + head) * p.head] : 0.0f;
  }
  __syncthreads();
  if (first + warp() >= p.heads) return;
  const float2 step = *reinterpret_cast<const float2*>(steps + warp() * kDecayStride + 2 * lane());
  const int token = 2 * lane();
  const bool forgets[2] = {step.x < kForget, step.y < kForget};
  const double one = forgets[0] ? 0.0 : step.x * kLog2E, two = forgets[1] ? 0.0 : step.y * kLog2E;
  const double after_two = scan_lanes<false>(one + two), after_one = after_two - two;
  const int mine = forgets[1] ? token + 1 : forgets[0] ? token : -1;
  const int reset_two = max_lanes_up(mine);
  const int earlier = __shfl_up_sync(0xffffffffu, reset_two, 1);
  const int reset_one = forgets[0] ? token : lane() > 0 ? earlier : -1;
  const int last_reset = __shfl_sync(0xffffffffu, reset_two, 31);
  const double all = __shfl_sync(0xffffffffu, after_two, 31);
  const auto exponential = [](double x) { return ptx::exp2_approx(static_cast<float>(x)); };
  const float2 high = make_float2(static_cast<float>(after_one), static_cast<float>(after_two));
  float* out = p.tables + (chunk_index * p.heads + first + warp()) * (kTableRows * kChunk) + token;
  const auto put = [out](int row, float x, float y) {
    *reinterpret_cast<float2*>(out + row * kChunk) = make_float2(x, y);
  };
  put(kHigh, high.x, high.y);
  put(kLow, static_cast<float>(after_one - high.x), static_cast<float>(after_two - high.y));
  put(kReset, __int_as_float(reset_one), __int_as_float(reset_two));
  put(kBefore, reset_one >= 0 ? 0.0f : exponential(after_one),
      reset_two >= 0 ? 0.0f : exponential(after_two));
  put(kAfter, token < last_reset ? 0.0f : exponential(all - after_one),
      token + 1 < last_reset ? 0.0f : exponential(all - after_two));
}

// d(log decay) of token t: everything that crosses t. Pairs j < t <= r (crossings, from the dq pass), the
// state part of q . dq at r >= t, the state part of k . dk at j < t, total <S, dS>. Each term carries the
// decay of t itself and nothing is subtracted: the shorter identity (a suffix sum of q . dq - k . dk) loses
// every digit when the decay is strong.
__device__ __forceinline__ void decay_gradient(const DecayGradientParams& p) {
  __shared__ float result[kDecayHeads * kDecayStride];
  const int64_t chunk_index = blockIdx.x;
  const Chunk chunk = p.chunks[chunk_index];
  const int first = static_cast<int>(blockIdx.y) * kDecayHeads, head = first + warp(), token = 2 * lane();
  if (head < p.heads) {
    const int64_t index = chunk_index * p.heads + head;
    double query[2] = {}, key[2] = {}, cross[2] = {};
    for (int tile = 0; tile < p.tiles; ++tile) {
      const int64_t offset = (index * p.tiles + tile) * kChunk + token;
      const auto add = [offset](double(&sum)[2], const float* from) {
        const float2 x = *reinterpret_cast<const float2*>(from + offset);
        sum[0] += x.x, sum[1] += x.y;
      };
      add(query, p.query_dots), add(key, p.key_dots), add(cross, p.crossings);
    }
    double border = 0;
    for (int i = lane(); i < p.border_parts; i += 32) border += p.borders[index * p.border_parts + i];
    for (int step = 16; step > 0; step /= 2) border += __shfl_xor_sync(0xffffffffu, border, step);
    // Sums over the lanes on either side, without taking a lane's own share off again.
    const double above = scan_lanes<true>(query[0] + query[1]), below = scan_lanes<false>(key[0] + key[1]);
    const double after = __shfl_down_sync(0xffffffffu, above, 1),
                 before = __shfl_up_sync(0xffffffffu, below, 1);
    const double later = query[1] + (lane() < 31 ? after : 0.0), earlier = lane() > 0 ? before : 0.0;
    const double d[2] = {cross[0] + (query[0] + later) + earlier + border,
                         cross[1] + later + (earlier + key[0]) + border};
    *reinterpret_cast<float2*>(result + warp() * kDecayStride + token) =
        make_float2(static_cast<float>(d[0]), static_cast<float>(d[1]));
    if (p.d_head_decay) {
      double sum = (token < chunk.tokens ? d[0] : 0.0) + (token + 1 < chunk.tokens ? d[1] : 0.0);
      for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
      if (lane() == 0) p.d_head_decay[index] = sum;
    }
  }
  __syncthreads();
  if (p.d_log_decay == nullptr) return;
  for (int i = static_cast<int>(threadIdx.x); i < kDecayHeads * kChunk; i += kDecayThreads) {
    const int h = i % kDecayHeads, t = i / kDecayHeads;
    if (t < chunk.tokens && first + h < p.heads)
      p.d_log_decay[chunk.row * p.row + (chunk.first + t) * p.heads + first + h] =
          result[h * kDecayStride + t];
  }
}

}  // namespace longreach::recurrence_cuda
