// A copy from pageable host memory returns after the host bytes have been staged, so they need not outlive
// the call.
#include "layers/ops/cuda/device_memory.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

namespace longreach::cuda {

at::Tensor device_bytes(size_t bytes, const at::Tensor& like) {
  return at::empty({static_cast<int64_t>(bytes)}, like.options().dtype(at::kByte));
}

void upload(const std::vector<std::byte>& from, const at::Tensor& to) {
  if (from.empty()) return;
  const auto bytes = static_cast<int64_t>(from.size());
  to.narrow(0, 0, bytes).copy_(at::from_blob(const_cast<std::byte*>(from.data()), {bytes}, at::kByte));
}

}  // namespace longreach::cuda
