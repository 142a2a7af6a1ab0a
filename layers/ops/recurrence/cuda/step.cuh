// One token against a state, for decoding: state <- a state + k v^T, o = scale q^T state. All of the time
// goes into reading and writing the state once: a block does 64 columns of all rows, 16 lanes side by side
// with 4 columns each, 8 rows at a time; the 8 partial sums of o meet in shared memory in a fixed order. fp32
// throughout.
#pragma once
#include "layers/ops/recurrence/cuda/tile.cuh"

namespace longreach::recurrence_cuda {

inline constexpr int kLongestKey = 256;

template <class T>
__device__ __forceinline__ const T* head_row(const Operand& x, int64_t row, int head) {
  return static_cast<const T*>(x.data) + row * x.row + head / x.share * x.head;
}

// Grid: column tiles, heads, rows of the batch.
template <class T>
__device__ __forceinline__ void step(const StepParams& p) {
  constexpr int kLanes = 16, kGroups = kThreads / kLanes;
  __shared__ float query[kLongestKey], key[kLongestKey];
  __shared__ float sums[kGroups][kChunk];
  const int head = static_cast<int>(blockIdx.y), thread = static_cast<int>(threadIdx.x);
  const int64_t row = blockIdx.z;
  for (int i = thread; i < p.dk; i += kThreads) {
    query[i] = Element<T>::to_float(head_row<T>(p.q, row, head)[i]) * p.scale;
    key[i] = Element<T>::to_float(head_row<T>(p.k, row, head)[i]);
  }
  const int group = thread / kLanes, column = static_cast<int>(blockIdx.x) * kChunk + thread % kLanes * 4;
  float value[4], out[4] = {};
#pragma unroll
  for (int i = 0; i < 4; ++i)
    value[i] = column + i < p.dv ? Element<T>::to_float(head_row<T>(p.v, row, head)[column + i]) : 0.0f;
  const float log_decay = p.log_decay ? p.log_decay[row * p.decay_row + head * p.decay_head] : 0.0f;
  const float a = ptx::exp2_approx(log_decay * 1.44269504f);
  __syncthreads();
  const int64_t state = (row * p.heads + head) * p.dk * p.dv;
#pragma unroll 4
  for (int r = group; r < p.dk; r += kGroups) {
    const int64_t at = state + static_cast<int64_t>(r) * p.dv + column;
    float s[4];
    cuda::unpack<float>(cuda::load_vector(p.state + at, p.dv - column, p.vectors), s);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      s[i] = a * s[i] + key[r] * value[i];
      out[i] += query[r] * s[i];
    }
    cuda::store_vector(p.new_state + at, cuda::pack<float>(s), p.dv - column, p.vectors);
  }
  *reinterpret_cast<float4*>(&sums[group][thread % kLanes * 4]) = make_float4(out[0], out[1], out[2], out[3]);
  __syncthreads();
  const int mine = static_cast<int>(blockIdx.x) * kChunk + thread;
  if (thread >= kChunk || mine >= p.dv) return;
  float o = 0;
#pragma unroll
  for (int g = 0; g < kGroups; ++g) o += sums[g][thread];
  const_cast<T*>(head_row<T>(p.o, row, head))[mine] = Element<T>::from_float(o);
}

}  // namespace longreach::recurrence_cuda
