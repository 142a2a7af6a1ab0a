// How many blocks of a kernel a multiprocessor holds, and the least time that a kernel's arithmetic and
// traffic take at a device's published peaks. Pure arithmetic over published limits: nothing here was
// measured.
#pragma once
#include <array>
#include <cstdint>

namespace longreach::cuda {

// Per multiprocessor, bytes and counts: CUDA C++ Programming Guide, "Technical Specifications per Compute
// Capability", and the occupancy calculator (registers go to warps in units of 256, warps in fours, a block
// of shared memory in units of 128 bytes after 1 KB that the system keeps). Peaks: NVIDIA's data sheets of
// A100 SXM 80 GB and H100 SXM, dense.
struct DeviceLimits {
  const char* name;
  const char* arch;  // whose cubin runs there
  int64_t threads, blocks, registers, shared, shared_a_block;
  double half_flops, tf32_flops, bytes_a_second;
};

inline constexpr std::array<DeviceLimits, 2> kDevices{{
    {"A100", "sm_80", 2048, 32, 65536, 167936, 166912, 312e12, 156e12, 2.039e12},
    {"H100", "sm_90", 2048, 32, 65536, 233472, 232448, 989.4e12, 494.7e12, 3.35e12},
}};

// 0 where a block does not fit. `shared`: static and dynamic.
int64_t blocks_a_multiprocessor(const DeviceLimits& device, int64_t threads, int64_t registers,
                                int64_t shared);

// Arithmetic of a launch on tensor cores, and the bytes that it must move at least. kTf32x3: fp32 as three
// TF32 products.
enum class Arithmetic { kHalf, kTf32x3 };
struct Work {
  double flops = 0, bytes = 0;  // both 0: not counted
  Arithmetic arithmetic = Arithmetic::kHalf;
};

// An ESTIMATE in seconds: the longer of arithmetic and traffic at published peaks. No kernel is that fast.
double roofline_seconds(const DeviceLimits& device, const Work& work);

}  // namespace longreach::cuda
