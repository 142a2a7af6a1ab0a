// Rotary embedding: pairs of features turn by an angle a token, (a, b) -> (a c - b s, b c + a s); the gradient is the same
// with the direction reversed. Pairs are features i and i + D/2 (halves, Hugging Face's Llama layout) or 2i and 2i + 1
// (neighbours, RoFormer's layout). A thread turns 4 pairs. fp32 products; y may be x. Traffic: x and y once; cos and sin
// once a token, from a cache for all heads but one.
#pragma once
#include "layers/cuda/rows.cuh"

namespace longreach::cuda {

// Grid: parts of the pairs of one token (blockIdx.y counts them), tokens.
template <class T, bool kNeighbours>
__device__ __forceinline__ void rotary(const RotaryParams& p) {
  const int quads = (p.half + 3) / 4;
  const int index = static_cast<int>(blockIdx.y) * kRowThreads + static_cast<int>(threadIdx.x);
  if (index >= quads * p.heads) return;
  const int head = index / quads, i = index % quads * 4;
  const int64_t token = blockIdx.x;
  const int count = p.half - i;
  const T* x = static_cast<const T*>(p.x) + token * p.x_token + head * p.x_head;
  T* y = static_cast<T*>(p.y) + token * p.y_token + head * p.y_head;
  const float4 c = load_quad(p.cos + token * p.half + i, count, p.quads);
  const float4 s = p.direction * load_quad(p.sin + token * p.half + i, count, p.quads);
  if constexpr (kNeighbours) {
    const float4 one = load_quad(x + 2 * i, 2 * count, p.quads),
                 two = load_quad(x + 2 * i + 4, 2 * count - 4, p.quads);
    store_quad(y + 2 * i,
               make_float4(one.x * c.x - one.y * s.x, one.y * c.x + one.x * s.x, one.z * c.y - one.w * s.y,
                           one.w * c.y + one.z * s.y),
               2 * count, p.quads);
    store_quad(y + 2 * i + 4,
               make_float4(two.x * c.z - two.y * s.z, two.y * c.z + two.x * s.z, two.z * c.w - two.w * s.w,
                           two.w * c.w + two.z * s.w),
               2 * count - 4, p.quads);
  } else {
    const float4 a = load_quad(x + i, count, p.quads), b = load_quad(x + p.half + i, count, p.quads);
    const float4 back = -1.0f * s;
    const auto turn = [](const float4& u, const float4& v, const float4& cos, const float4& sin) {
      return make_float4(u.x * cos.x + v.x * sin.x, u.y * cos.y + v.y * sin.y, u.z * cos.z + v.z * sin.z,
                         u.w * cos.w + v.w * sin.w);
    };
    store_quad(y + i, turn(a, b, c, back), count, p.quads);
    store_quad(y + p.half + i, turn(b, a, c, s), count, p.quads);
  }
}

}  // namespace longreach::cuda
