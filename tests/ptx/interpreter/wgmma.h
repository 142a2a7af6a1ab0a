// wgmma's view of shared memory: matrix descriptors, and where an element of an operand lies (PTX ISA,
// "Asynchronous warpgroup level matrix shared memory layout"; the canonical layouts as CuTe's
// mma_sm90_desc.hpp lists them).
#pragma once
#include <cstdint>

namespace longreach::ptx {

struct MatrixDescriptor {
  uint32_t start = 0, leading = 0, stride = 0;  // bytes
  uint32_t swizzle_bytes = 0;                   // 0, 32, 64, 128
  uint32_t base_offset = 0;

  static constexpr MatrixDescriptor decode(uint64_t bits) {
    constexpr uint32_t kSwizzles[] = {0, 128, 64, 32};
    return {static_cast<uint32_t>(bits & 0x3fff) << 4, static_cast<uint32_t>(bits >> 16 & 0x3fff) << 4,
            static_cast<uint32_t>(bits >> 32 & 0x3fff) << 4, kSwizzles[bits >> 62],
            static_cast<uint32_t>(bits >> 49 & 7)};
  }

  // Address of 16-bit element (mn, k), mn along M or N, k < 16.
  constexpr uint32_t address(uint32_t mn, uint32_t k, bool mn_major) const {
    const uint32_t w = swizzle_bytes;
    uint32_t at = start;
    if (w == 0) {
      at += mn_major ? mn / 8 * stride + mn % 8 * 2 + k % 8 * 16 + k / 8 * leading
                     : mn / 8 * stride + mn % 8 * 16 + k % 8 * 2 + k / 8 * leading;
    } else {
      at += mn_major ? mn / (w / 2) * leading + mn % (w / 2) * 2 + k % 8 * w + k / 8 * stride
                     : mn / 8 * stride + mn % 8 * w + k * 2;
      at ^= (at >> 7 & (w / 16 - 1)) << 4;
    }
    return at;
  }
};

}  // namespace longreach::ptx
