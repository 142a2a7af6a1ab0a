#include "train/program/info_cuda.h"

#include <algorithm>
#include <iomanip>
#include <map>
#include <sstream>
#include <vector>

#include "layers/ops/cuda/static_report.h"
#include "layers/ops/launches/launches.h"

namespace longreach {
namespace {

using cuda::DeviceLimits;
using cuda::NamedLaunch;
using cuda::StaticRow;

constexpr const char* kLegend =
    "CUDA kernels of this program, as ptxas reports them. Nothing below was measured on a device.\n"
    "  shared   bytes of shared memory a block, static and dynamic, by the kernel's launch plan\n"
    "  mma      tensor instructions of the main loop, and their share of its PTX instructions\n"
    "  narrow   loads and stores of global memory below 16 bytes a lane, of all that stand in the PTX\n"
    "  regs     registers a thread; spill: bytes stored and loaded; blocks: a multiprocessor by registers, "
    "shared memory, "
    "threads\n"
    "  >= us    ESTIMATE: arithmetic or traffic, whichever is longer, at published peaks (A100 SXM 80 GB, "
    "H100 SXM)\n"
    "Problems, B = 1, H = 16, T = 8192: attention, sm_90 (on such a device) and decode (one query) causal, "
    "of the head\n"
    "dims in the name; recurrence Dk = Dv = 128 with a decay per token; rows 8192 of 4096 (logits 32768).\n";

std::string share(int64_t part, int64_t whole) {
  return std::to_string(part) + "/" + std::to_string(part + whole);
}

std::string estimate(const DeviceLimits& device, const cuda::Work& work) {
  if (work.flops == 0 && work.bytes == 0) return "-";
  std::ostringstream out;
  out << std::fixed << std::setprecision(1) << cuda::roofline_seconds(device, work) * 1e6;
  return out.str();
}

std::string main_loop(const cuda::Code& code) {
  if (code.tensor == 0) return "-";
  std::ostringstream out;
  out << code.loop_tensor << " " << std::fixed << std::setprecision(1)
      << 100.0 * code.loop_tensor / std::max<int64_t>(code.loop_instructions, 1) << "%";
  return out.str();
}

std::string device_columns(const DeviceLimits& device, const StaticRow* row, const NamedLaunch* launch) {
  std::ostringstream out;
  if (row == nullptr) {
    out << std::setw(10) << "-" << std::setw(7) << "-" << std::setw(8) << "-" << std::setw(9) << "-";
    return out.str();
  }
  const cuda::Resources& r = row->resources;
  const int64_t shared = r.static_shared + (launch ? launch->launch.shared_bytes : 0);
  const int64_t threads = launch ? launch->launch.block.x : 0;
  out << std::setw(10) << r.registers << std::setw(7)
      << std::to_string(r.spill_stores) + "+" + std::to_string(r.spill_loads) << std::setw(8)
      << (launch ? std::to_string(blocks_a_multiprocessor(device, threads, r.registers, shared)) : "-")
      << std::setw(9) << (launch ? estimate(device, launch->work) : "-");
  return out.str();
}

}  // namespace

void print_static_report(const std::string& table, std::ostream& out) {
  const std::vector<StaticRow> rows = cuda::read_table(table, "the static table of liblongreach_cuda.so");
  const std::vector<NamedLaunch> launches = named_launches();
  std::map<std::string, const NamedLaunch*> by_kernel;
  for (const NamedLaunch& launch : launches) by_kernel[launch.launch.kernel] = &launch;
  std::map<std::string, std::map<std::string, const StaticRow*>> kernels;  // by name, then architecture
  for (const StaticRow& row : rows)
    kernels[row.resources.kernel][row.resources.arch.substr(0, 5)] =
        &row;  // sm_90a belongs to the device of sm_90
  out << kLegend << "\n"
      << std::left << std::setw(50) << "kernel" << std::setw(12) << "problem" << std::right << std::setw(8)
      << "threads" << std::setw(8) << "shared" << std::setw(11) << "mma" << std::setw(11) << "narrow ld"
      << std::setw(9) << "st";
  for (const DeviceLimits& device : cuda::kDevices)
    out << " |" << std::setw(10) << std::string(device.name) + " regs" << std::setw(7) << "spill"
        << std::setw(8) << "blocks" << std::setw(9) << ">= us";
  out << "\n";
  for (const auto& [kernel, archs] : kernels) {
    const auto found = by_kernel.find(kernel);
    const NamedLaunch* launch = found == by_kernel.end() ? nullptr : found->second;
    const StaticRow& any = *archs.begin()->second;
    const int64_t shared = any.resources.static_shared + (launch ? launch->launch.shared_bytes : 0);
    out << std::left << std::setw(50) << kernel << std::setw(12) << (launch ? launch->problem : "-")
        << std::right << std::setw(8) << (launch ? launch->launch.block.x : 0) << std::setw(8) << shared
        << std::setw(11) << main_loop(any.code) << std::setw(11)
        << share(any.code.narrow_loads, any.code.wide_loads) << std::setw(9)
        << share(any.code.narrow_stores, any.code.wide_stores);
    for (const DeviceLimits& device : cuda::kDevices) {
      const auto row = archs.find(device.arch);
      out << " |" << device_columns(device, row == archs.end() ? nullptr : row->second, launch);
    }
    out << "\n";
  }
}

}  // namespace longreach
