// The PTX interpreter: runs a launch plan on the CPU, from the very PTX that ptxas turns into the shipped
// cubin, and reports what a device would not: out-of-bounds, misaligned and uninitialised accesses, data used
// before it arrived, races, mismatched barriers, deadlocks, bank conflicts and wasted sectors. README.md says
// what is checked and what is not.
//
//   Module module = load_kernels("interval_attention_forward");
//   Memory memory;
//   const float* x = memory.upload<float>("x", values);
//   float* y = memory.allocate_array<float>("y", n);
//   Report report = run(module, plan(x, y, n), memory);
//   EXPECT_TRUE(report.errors.empty()) << report.text();
//   std::vector<float> result = memory.download(y, n);
#pragma once
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "layers/ops/cuda/launch.h"

namespace longreach::ptx {

struct ModuleData;
struct Kernel;
struct Region;

// The kernels of one .ptx file.
class Module {
 public:
  // Throws DataError that names file, line and opcode for anything the interpreter does not know.
  static Module load(const std::filesystem::path& file);
  static Module parse(std::string_view text, std::string name = "text");

  const Kernel& kernel(const std::string& name) const;  // throws DataError with the names that exist
  std::vector<std::string> kernel_names() const;
  const ModuleData& data() const { return *data_; }

 private:
  std::shared_ptr<const ModuleData> data_;
};

// Loads NAME.ptx of the build's folder of CUDA kernels.
Module load_kernels(std::string_view name);

// Global memory: named buffers with red zones, each byte known to be written or not.
class Memory {
 public:
  Memory();
  ~Memory();
  Memory(Memory&&) noexcept;
  Memory& operator=(Memory&&) noexcept;

  // Uninitialised: a kernel that reads it before writing it makes an error.
  void* allocate(std::string name, size_t bytes, size_t alignment = 256);
  template <class T>
  T* allocate_array(std::string name, size_t count) {
    return static_cast<T*>(allocate(std::move(name), count * sizeof(T)));
  }

  template <class T>
  T* upload(std::string name, std::span<const T> values) {
    auto* data = static_cast<T*>(allocate(std::move(name), values.size_bytes()));
    if (!values.empty()) std::memcpy(data, values.data(), values.size_bytes());
    mark_written(data, values.size_bytes());
    return data;
  }
  template <class T>
  T* upload(std::string name, const std::vector<T>& values) {
    return upload(std::move(name), std::span<const T>(values));
  }

  // Throws DataError where a byte was never written.
  template <class T>
  std::vector<T> download(const T* data, size_t count) const {
    require_written(data, count * sizeof(T));
    return std::vector<T>(data, data + count);
  }

  void mark_written(const void* data, size_t bytes);
  void require_written(const void* data, size_t bytes) const;

  Region* find(
      uint64_t address) const;  // the buffer that an address lies in or next to; null when far from all
  const std::vector<std::unique_ptr<Region>>& regions() const { return regions_; }

 private:
  std::vector<std::unique_ptr<Region>> regions_;
  std::vector<Region*> sorted_;
};

struct Options {
  int threads = 0;        // of the host; 0: all. Kernels with atomics on global memory run on one.
  uint64_t schedule = 0;  // order of blocks and warps: 0 in order, else the seed of a random one
  bool profile = false;   // count shared wavefronts and global sectors
  uint64_t instruction_limit = 1ull << 31;  // of warp instructions a block, before it counts as hung
};

// Traffic of one source line: what was needed and what the best layout of the same bytes would need.
struct LineTraffic {
  uint64_t shared_wavefronts = 0, shared_ideal = 0;
  uint64_t global_sectors = 0, global_ideal = 0;  // of 32 bytes
};

struct Report {
  std::string kernel;
  std::vector<std::string> errors;  // each: kernel, source line, block, warp, lane, what, how often
  std::map<std::string, uint64_t> instructions;  // warp instructions by opcode
  std::map<std::string, LineTraffic> traffic;    // by source line; with Options::profile
  uint64_t warp_instructions = 0;

  double shared_wavefront_ratio() const;  // found / ideal; 1 when there is no shared traffic
  double sector_ratio() const;
  std::string text() const;
};

// Runs one launch. Kernels that run one after another on one Memory see each other's writes; races are judged
// within one launch. Throws DataError when the launch does not fit the kernel (parameters, block size, shared
// memory).
Report run(const Module& module, const cuda::Launch& launch, Memory& memory, const Options& options = {});

}  // namespace longreach::ptx
