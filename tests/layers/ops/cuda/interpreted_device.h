// The PTX interpreter in a device's place, behind the operators: while one lives, tensors made on the host
// lie in the interpreter's memory (red zones, NaN until written), operators take the path of CUDA tensors,
// and every launch runs from its PTX with all checks but that of uninitialised reads, since the host writes
// too.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>

#include "core/error.h"
#include "layers/ops/cuda/backend.h"
#include "tests/ptx/interpreter/mutation.h"

namespace longreach::test {

// NAME of the NAME.ptx that holds the kernel.
inline std::string file_of_kernel(const std::string& kernel) {
  static const std::map<std::string, std::string> files = [] {
    std::map<std::string, std::string> found;
    for (const auto& file : std::filesystem::directory_iterator(LONGREACH_CUDA_FOLDER)) {
      const std::string stem = file.path().stem().string();
      if (file.path().extension() != ".ptx" || stem.starts_with("tests_")) continue;
      std::ifstream in(file.path());
      for (std::string line; std::getline(in, line);) {
        const size_t entry = line.find(".entry ");
        if (entry != std::string::npos)
          found[line.substr(entry + 7, line.find('(', entry) - entry - 7)] = stem;
      }
    }
    return found;
  }();
  const auto found = files.find(kernel);
  check<DataError>(found != files.end(), "no PTX holds the kernel ", kernel);
  return found->second;
}

class InterpretedDevice final : public cuda::Backend, private c10::Allocator {
 public:
  explicit InterpretedDevice(int architecture = 80)
      : architecture_(architecture), host_(c10::GetCPUAllocator()), kernels_(file_of_kernel) {
    c10::SetCPUAllocator(this);
    cuda::replace_backend(this);
  }
  ~InterpretedDevice() override {
    cuda::replace_backend(nullptr);
    c10::SetCPUAllocator(host_);
  }
  InterpretedDevice(const InterpretedDevice&) = delete;

  void run(const std::vector<cuda::Launch>& launches) override {
    for (const cuda::Launch& launch : launches) {
      const ptx::Report report = ptx::run(kernels_.module_of(launch.kernel), launch, memory());
      EXPECT_TRUE(report.errors.empty()) << report.text();
      ++runs_[launch.kernel];
    }
  }
  int multiprocessors() override { return 108; }
  int architecture() override { return architecture_; }

  // Launches of each kernel so far.
  const std::map<std::string, int>& runs() const { return runs_; }

 private:
  // Outlives every tensor.
  static ptx::Memory& memory() {
    static auto* all = new ptx::Memory;
    return *all;
  }
  at::DataPtr allocate(size_t bytes) override {
    const std::lock_guard lock(mutex_);
    void* data = bytes == 0 ? nullptr : memory().allocate("tensor", bytes);
    if (data != nullptr) memory().mark_written(data, bytes);
    return {data, data, &keep, at::Device(at::kCPU)};
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
  at::DeleterFnPtr raw_deleter() const override { return &keep; }
  static void keep(void*) {}

  int architecture_;
  c10::Allocator* host_;
  std::mutex mutex_;
  ptx::Kernels kernels_;
  std::map<std::string, int> runs_;
};

}  // namespace longreach::test
