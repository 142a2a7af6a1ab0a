// What the plug-in stands on: one line for `longreach info cuda`.
#pragma once
#include <string>

namespace longreach::cuda {

// Versions of the CUDA runtime, cuDNN and NCCL that are loaded, and the driver. Needs neither driver nor
// device.
std::string libraries();

}  // namespace longreach::cuda
