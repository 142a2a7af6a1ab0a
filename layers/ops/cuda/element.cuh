// Element types of kernels: conversion to and from fp32, pairs in one register, and the 16-bit tensor
// product.
#pragma once
#include <cstdint>

#include "layers/ops/cuda/ptx.cuh"

namespace longreach::cuda {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

template <class T>
struct Element;

template <>
struct Element<float> {
  static __device__ __forceinline__ float to_float(float x) { return x; }
  static __device__ __forceinline__ float from_float(float x) { return x; }
};

template <>
struct Element<BFloat16> {
  static __device__ __forceinline__ float to_float(BFloat16 x) {
    return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
  }
  static __device__ __forceinline__ BFloat16 from_float(float x) {
    return {static_cast<uint16_t>(ptx::pack_bf16(x, 0.0f))};
  }
  static __device__ __forceinline__ uint32_t pack(float low, float high) { return ptx::pack_bf16(low, high); }
  static __device__ __forceinline__ float low(uint32_t pair) { return __uint_as_float(pair << 16); }
  static __device__ __forceinline__ float high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
  static __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
    ptx::mma_bf16(d, a, b0, b1);
  }
};

template <>
struct Element<Float16> {
  static __device__ __forceinline__ float to_float(Float16 x) {
    float r;
    asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x.bits));
    return r;
  }
  static __device__ __forceinline__ Float16 from_float(float x) {
    return {static_cast<uint16_t>(ptx::pack_fp16(x, 0.0f))};
  }
  static __device__ __forceinline__ uint32_t pack(float low, float high) { return ptx::pack_fp16(low, high); }
  static __device__ __forceinline__ float low(uint32_t pair) {
    return to_float(Float16{static_cast<uint16_t>(pair)});
  }
  static __device__ __forceinline__ float high(uint32_t pair) {
    return to_float(Float16{static_cast<uint16_t>(pair >> 16)});
  }
  static __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
    ptx::mma_fp16(d, a, b0, b1);
  }
};

// One store of 16 or 8 bytes: the compiler would merge it with the element stores of another branch, into 4
// of 4 bytes.
__device__ __forceinline__ void store_16(void* to, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(a), "r"(b),
               "r"(c), "r"(d)
               : "memory");
}
__device__ __forceinline__ void store_8(void* to, uint32_t a, uint32_t b) {
  asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(to)), "r"(a), "r"(b)
               : "memory");
}

// 16 bytes of elements as fp32 and back.
template <class T>
inline constexpr int kPerVector = 16 / sizeof(T);

template <class T>
__device__ __forceinline__ void unpack(const uint4& x, float (&out)[kPerVector<T>]) {
  const uint32_t words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      out[i] = __uint_as_float(words[i]);
    } else {
      out[2 * i] = Element<T>::low(words[i]), out[2 * i + 1] = Element<T>::high(words[i]);
    }
  }
}

template <class T>
__device__ __forceinline__ uint4 pack(const float (&x)[kPerVector<T>]) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      words[i] = __float_as_uint(x[i]);
    } else {
      words[i] = Element<T>::pack(x[2 * i], x[2 * i + 1]);
    }
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// As 16 bytes at once where all are wanted and the address allows, else one by one; elements beyond `count`
// are 0 and are not written.
template <class T>
__device__ __forceinline__ uint4 load_vector(const T* from, int count, bool aligned) {
  if (aligned && count >= kPerVector<T>) return *reinterpret_cast<const uint4*>(from);
  float x[kPerVector<T>];
#pragma unroll
  for (int i = 0; i < kPerVector<T>; ++i) x[i] = i < count ? Element<T>::to_float(from[i]) : 0.0f;
  return pack<T>(x);
}

template <class T>
__device__ __forceinline__ void store_vector(T* to, const uint4& x, int count, bool aligned) {
  if (aligned && count >= kPerVector<T>) {
    store_16(to, x.x, x.y, x.z, x.w);
    return;
  }
  float values[kPerVector<T>];
  unpack<T>(x, values);
#pragma unroll
  for (int i = 0; i < kPerVector<T>; ++i)
    if (i < count) to[i] = Element<T>::from_float(values[i]);
}

// Four elements as fp32, for elementwise kernels: 8 or 16 bytes a lane keep fp32 data beside 16-bit data in
// whole sectors. The rules of load_vector.
template <class T>
__device__ __forceinline__ float4 load_quad(const T* from, int64_t count, bool aligned) {
  if (aligned && count >= 4) {
    if constexpr (sizeof(T) == 4) {
      return *reinterpret_cast<const float4*>(from);
    } else {
      const uint2 x = *reinterpret_cast<const uint2*>(from);
      return make_float4(Element<T>::low(x.x), Element<T>::high(x.x), Element<T>::low(x.y),
                         Element<T>::high(x.y));
    }
  }
  const auto at = [&](int i) { return i < count ? Element<T>::to_float(from[i]) : 0.0f; };
  return make_float4(at(0), at(1), at(2), at(3));
}

template <class T>
__device__ __forceinline__ void store_quad(T* to, const float4& x, int64_t count, bool aligned) {
  if (aligned && count >= 4) {
    if constexpr (sizeof(T) == 4) {
      store_16(to, __float_as_uint(x.x), __float_as_uint(x.y), __float_as_uint(x.z), __float_as_uint(x.w));
    } else {
      store_8(to, Element<T>::pack(x.x, x.y), Element<T>::pack(x.z, x.w));
    }
    return;
  }
  if (count > 0) to[0] = Element<T>::from_float(x.x);
  if (count > 1) to[1] = Element<T>::from_float(x.y);
  if (count > 2) to[2] = Element<T>::from_float(x.z);
  if (count > 3) to[3] = Element<T>::from_float(x.w);
}

}  // namespace longreach::cuda
