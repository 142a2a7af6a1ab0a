// Work space of launch plans, from ATen's caching allocator: it may be given back as soon as the kernels are
// started, since they and whoever gets it next run on one stream.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <vector>

namespace longreach::cuda {

// uint8 [bytes] on the device of `like`, not cleared; 256-byte aligned (ATen aligns to 512).
at::Tensor device_bytes(size_t bytes, const at::Tensor& like);

// Copies host bytes to the start of `to`; returns when they have been read.
void upload(const std::vector<std::byte>& from, const at::Tensor& to);

}  // namespace longreach::cuda
