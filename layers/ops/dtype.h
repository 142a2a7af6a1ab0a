// Element types of torch-free kernels.
#pragma once
#include <cstdint>

namespace longreach {

enum class DType : int32_t { kFloat32, kBFloat16, kFloat16 };  // kFloat16: CUDA kernels alone

}  // namespace longreach
