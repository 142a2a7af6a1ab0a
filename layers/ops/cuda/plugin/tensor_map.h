// Errors of the CUDA runtime, and tensor maps, which only the driver can encode.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>

#include "layers/ops/cuda/launch.h"

namespace longreach::cuda {

// Throws Error: what was attempted and CUDA's words.
void check_cuda(cudaError_t error, const std::string& what);

// Writes the 128 bytes of an EncodedTensorMap.
void encode_tensor_map(const TensorMap& map, std::byte* out);

}  // namespace longreach::cuda
