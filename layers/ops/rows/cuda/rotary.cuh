// Rotary embedding: pairs of features turn by an angle a token, (a, b) -> (a c - b s, b c + a s); the
// gradient is the same with the direction reversed. Pairs are features i and i + D/2 (halves, Hugging Face's
// Llama layout) or 2i and 2i + 1 (neighbours, RoFormer's layout). A thread turns 4 pairs of halves or 2 of
// neighbours. fp32 products; y may be x. Traffic: x and y once; cos and sin once a token, from a cache for
// all heads but one.
#pragma once
#include "layers/ops/rows/cuda/rows.cuh"

namespace longreach::cuda {

inline constexpr int kHalvesPairs = 4, kNeighbourPairs = 2;  // a thread

struct Place {  // of a thread's pairs
  int64_t token;
  int head, first,
      count;  // pairs [first, first + count) of the head, count possibly more than the thread's share
};

// Grid: tokens, parts of the pairs of one token. False where the thread has none.
template <int kPairs>
__device__ __forceinline__ bool find_place(const RotaryParams& p, Place& place) {
  const int shares = (p.half + kPairs - 1) / kPairs;
  const int index = static_cast<int>(blockIdx.y) * kRowThreads + static_cast<int>(threadIdx.x);
  place = {blockIdx.x, index / shares, index % shares * kPairs, p.half - index % shares * kPairs};
  return place.head < p.heads;
}

template <class T>
__device__ __forceinline__ const T* input(const RotaryParams& p, const Place& place) {
  return static_cast<const T*>(p.x) + place.token * p.x_token + place.head * p.x_head;
}
template <class T>
__device__ __forceinline__ T* output(const RotaryParams& p, const Place& place) {
  return static_cast<T*>(p.y) + place.token * p.y_token + place.head * p.y_head;
}

template <class T>
__device__ __forceinline__ void rotary_halves(const RotaryParams& p) {
  Place place;
  if (!find_place<kHalvesPairs>(p, place)) return;
  const int i = place.first, count = place.count;
  const float4 c = load_quad(p.cos + place.token * p.half + i, count, p.quads);
  const float4 s = p.direction * load_quad(p.sin + place.token * p.half + i, count, p.quads);
  const T* x = input<T>(p, place);
  T* y = output<T>(p, place);
  const float4 a = load_quad(x + i, count, p.quads), b = load_quad(x + p.half + i, count, p.quads);
  const float4 back = -1.0f * s;
  const auto turn = [](const float4& u, const float4& v, const float4& cos, const float4& sin) {
    return make_float4(u.x * cos.x + v.x * sin.x, u.y * cos.y + v.y * sin.y, u.z * cos.z + v.z * sin.z,
                       u.w * cos.w + v.w * sin.w);
  };
  store_quad(y + i, turn(a, b, c, back), count, p.quads);
  store_quad(y + p.half + i, turn(b, a, c, s), count, p.quads);
}

__device__ __forceinline__ float2 load_pair(const float* from, int count, bool aligned) {
  if (aligned && count >= 2) return *reinterpret_cast<const float2*>(from);
  return make_float2(from[0], count >= 2 ? from[1] : 0.0f);
}

template <class T>
__device__ __forceinline__ void rotary_neighbours(const RotaryParams& p) {
  Place place;
  if (!find_place<kNeighbourPairs>(p, place)) return;
  const int i = place.first;
  const float2 c = load_pair(p.cos + place.token * p.half + i, place.count, p.quads);
  const float2 turned = load_pair(p.sin + place.token * p.half + i, place.count, p.quads);
  const float2 s = make_float2(p.direction * turned.x, p.direction * turned.y);
  const float4 x = load_quad(input<T>(p, place) + 2 * i, 2 * place.count, p.quads);
  store_quad(
      output<T>(p, place) + 2 * i,
      make_float4(x.x * c.x - x.y * s.x, x.y * c.x + x.x * s.x, x.z * c.y - x.w * s.y, x.w * c.y + x.z * s.y),
      2 * place.count, p.quads);
}

}  // namespace longreach::cuda
