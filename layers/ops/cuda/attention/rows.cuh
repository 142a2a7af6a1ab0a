// The passes over rows around the kernels of attention: the terms of the backward pass, sums over heads, and
// copies of rows that are not aligned. All are bound by memory; blocks have kRowThreads threads, and each
// kernel's comment says what one of its warps does.
#pragma once
#include "layers/ops/cuda/attention/blocks.cuh"

namespace longreach::cuda::attention {

// The number of this warp among all of the launch.
__device__ __forceinline__ int64_t global_warp() {
  return static_cast<int64_t>(blockIdx.x) * (kRowThreads / 32) + warp_id();
}

// Sum of products of `count` elements from both pointers.
template <class Element>
__device__ __forceinline__ float dot_chunk(const char* a, const char* b, int count, bool aligned) {
  constexpr int kElements = 16 / Element::kBytes;
  float sum = 0.0f;
  if (aligned) {
    const uint4 x = *reinterpret_cast<const uint4*>(a), y = *reinterpret_cast<const uint4*>(b);
    const uint32_t xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (Element::kBytes == 4) {
        sum = fmaf(__uint_as_float(xs[i]), __uint_as_float(ys[i]), sum);
      } else {
        sum = fmaf(Element::to_float(xs[i] & 0xffff), Element::to_float(ys[i] & 0xffff), sum);
        sum = fmaf(Element::to_float(xs[i] >> 16), Element::to_float(ys[i] >> 16), sum);
      }
    }
    return sum;
  }
#pragma unroll 1
  for (int i = 0; i < min(count, kElements); ++i) {
    if constexpr (Element::kBytes == 4) {
      sum = fmaf(reinterpret_cast<const float*>(a)[i], reinterpret_cast<const float*>(b)[i], sum);
    } else {
      sum = fmaf(Element::to_float(reinterpret_cast<const uint16_t*>(a)[i]),
                 Element::to_float(reinterpret_cast<const uint16_t*>(b)[i]), sum);
    }
  }
  return sum;
}

// delta and the backward pass's lse. A warp has four neighbouring queries of one head, eight lanes a query.
template <class Element>
__device__ __forceinline__ void row_terms(const CudaRowTerms& p) {
  const int64_t query = global_warp() * 4 + (lane_id() >> 3), total = static_cast<int64_t>(p.queries);
  const int64_t rows = total * p.heads * p.batches;
  const int64_t row = min(query, rows - 1), head_row = row / total;
  const int batch = static_cast<int>(head_row / p.heads), head = static_cast<int>(head_row % p.heads);
  const int64_t token = row % total;
  const char *o = row_pointer(p.o, batch, token, head), *d_o = row_pointer(p.d_o, batch, token, head);
  constexpr int kElements = 16 / Element::kBytes;
  const bool aligned = p.o.aligned && p.d_o.aligned;
  float sum = 0.0f;
  for (int element = (lane_id() & 7) * kElements; element < p.o.size; element += 8 * kElements)
    sum += dot_chunk<Element>(o + element * Element::kBytes, d_o + element * Element::kBytes,
                              p.o.size - element, aligned);
#pragma unroll
  for (int step = 4; step > 0; step >>= 1) sum += __shfl_xor_sync(kAllLanes, sum, step);
  if ((lane_id() & 7) != 0 || query >= rows) return;
  const float lse = p.lse[row];
  if (p.d_lse != nullptr) sum -= p.d_lse[row];
  p.terms[row] = {lse == -INFINITY ? INFINITY : lse * kLog2e, lse == -INFINITY ? 0.0f : sum};
}

template <class Element>
__device__ __forceinline__ void store_element(char* row, int index, float x) {
  if constexpr (Element::kBytes == 4) {
    reinterpret_cast<float*>(row)[index] = x;
  } else {
    reinterpret_cast<uint16_t*>(row)[index] = static_cast<uint16_t>(Element::pack(x, 0.0f));
  }
}

// The rows of [batch, token, head] that a warp has, as pointers.
template <class Problem>
struct WarpRow {
  int batch, head;
  int64_t token;
  bool valid;

  __device__ __forceinline__ explicit WarpRow(const Problem& p) {
    const int64_t row = global_warp(), head_row = row / p.heads;
    head = static_cast<int>(row % p.heads);
    token = head_row % p.tokens;
    batch = static_cast<int>(head_row / p.tokens);
    valid = batch < p.batches;
  }
};

// Parts of neighbouring heads added in their order. A warp has one row of the result.
template <class Element>
__device__ __forceinline__ void sum_heads(const CudaSumHeads& p) {
  const WarpRow<CudaSumHeads> at(p);
  if (!at.valid) return;
  char* out = row_pointer(p.out, at.batch, at.token, at.head);
  for (int element = lane_id(); element < p.out.size; element += 32) {
    float sum = 0.0f;
    for (int part = 0; part < p.parts; ++part)
      sum += reinterpret_cast<const float*>(
          row_pointer(p.in, at.batch, at.token, at.head * p.parts + part))[element];
    store_element<Element>(out, element, sum);
  }
}

// A warp has one row.
template <class Word>
__device__ __forceinline__ void align_rows(const CudaAlign& p) {
  const WarpRow<CudaAlign> at(p);
  if (!at.valid) return;
  const Word* in = reinterpret_cast<const Word*>(row_pointer(p.in, at.batch, at.token, at.head));
  Word* out = reinterpret_cast<Word*>(row_pointer(p.out, at.batch, at.token, at.head));
  for (int element = lane_id(); element < p.in.size; element += 32) out[element] = in[element];
}

}  // namespace longreach::cuda::attention
