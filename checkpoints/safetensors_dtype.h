// The names that safetensors files have for dtypes, and LibTorch's.
#pragma once
#include <c10/core/ScalarType.h>

#include <string>

namespace longreach {

// Both throw CheckpointError naming `who`.
std::string safetensors_dtype_name(at::ScalarType dtype, const std::string& who);
at::ScalarType safetensors_dtype(const std::string& name, const std::string& who);

}  // namespace longreach
