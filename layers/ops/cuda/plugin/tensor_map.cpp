// Tensor maps through the driver.
#include "layers/ops/cuda/plugin/tensor_map.h"

#include <cuda.h>

#include <cstring>

#include "core/error.h"

namespace longreach::cuda {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's function, without linking the driver's library, which machines without a GPU lack.
Encode find_encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  check_cuda(
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
      "cuTensorMapEncodeTiled");
  check<Error>(function != nullptr, "CUDA: the driver has no cuTensorMapEncodeTiled; 525 or newer is needed");
  return reinterpret_cast<Encode>(function);
}

CUtensorMapSwizzle swizzle_of(uint32_t bytes) {
  switch (bytes) {
    case 32:
      return CU_TENSOR_MAP_SWIZZLE_32B;
    case 64:
      return CU_TENSOR_MAP_SWIZZLE_64B;
    case 128:
      return CU_TENSOR_MAP_SWIZZLE_128B;
    default:
      return CU_TENSOR_MAP_SWIZZLE_NONE;
  }
}

// Boxes are copied bit by bit: only the width of an element matters.
CUtensorMapDataType type_of(uint32_t bytes) {
  return bytes == 4 ? CU_TENSOR_MAP_DATA_TYPE_UINT32 : CU_TENSOR_MAP_DATA_TYPE_UINT16;
}

}  // namespace

void check_cuda(cudaError_t error, const std::string& what) {
  check<Error>(error == cudaSuccess, "CUDA: ", what, ": ", cudaGetErrorString(error));
}

void encode_tensor_map(const TensorMap& map, std::byte* out) {
  static const Encode encode = find_encoder();
  CUtensorMap encoded;
  const cuuint32_t steps[5] = {1, 1, 1, 1, 1};
  const CUresult result = encode(&encoded, type_of(map.element_bytes), map.rank, const_cast<void*>(map.data),
                                 map.size.data(), map.stride.data(), map.box.data(), steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle_of(map.swizzle_bytes),
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  check<Error>(result == CUDA_SUCCESS, "CUDA: a tensor map of rank ", map.rank, " is refused, error ",
               static_cast<int>(result));
  std::memcpy(out, &encoded, sizeof encoded);
}

}  // namespace longreach::cuda
