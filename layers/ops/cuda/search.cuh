// Packed documents on the device: which one a row, a tile or a token belongs to.
#pragma once
#include <cstdint>

namespace longreach::cuda {

// The number of the last of `count` documents that begins no later than `index`; kBegin says where one
// begins. References to a kernel's parameters: copies would hold registers over what follows.
template <auto kBegin, class Document>
__device__ __forceinline__ int find_begun(const Document* const& documents, const int32_t& count, int index) {
  int low = 0, high = count;
#pragma unroll 1
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (documents[middle].*kBegin <= index ? low : high) = middle;
  }
  return low;
}

}  // namespace longreach::cuda
