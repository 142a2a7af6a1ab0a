#include "layers/ops/cuda/occupancy.h"

#include <algorithm>

namespace longreach::cuda {
namespace {

int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

}  // namespace

int64_t blocks_a_multiprocessor(const DeviceLimits& device, int64_t threads, int64_t registers,
                                int64_t shared) {
  if (shared > device.shared_a_block || threads <= 0) return 0;
  const int64_t warps = (threads + 31) / 32;
  const int64_t held_warps = device.registers / round_up(std::max<int64_t>(registers, 1) * 32, 256) / 4 * 4;
  return std::min({device.blocks, device.threads / (warps * 32), held_warps / warps,
                   device.shared / round_up(shared + 1024, 128)});
}

double roofline_seconds(const DeviceLimits& device, const Work& work) {
  const double peak = work.arithmetic == Arithmetic::kHalf ? device.half_flops : device.tf32_flops / 3;
  return std::max(work.flops / peak, work.bytes / device.bytes_a_second);
}

}  // namespace longreach::cuda
