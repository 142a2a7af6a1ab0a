// The door to CUDA. The program links the CPU half of LibTorch only; the CUDA half and our kernels are loaded when they are
// asked for, so that one binary serves machines with and without a GPU.
//
//   load()          libtorch_cuda.so (it registers CUDA with ATen), then liblongreach_cuda.so (kernels and launcher)
//   run(launches)   on the current stream of the current device
#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "layers/ops/cuda/launch.h"

namespace longreach::cuda {

// What the plug-in brings. Errors are thrown as longreach::Error with the kernel and CUDA's own words.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual void run(const std::vector<Launch>& launches) = 0;
  virtual int multiprocessors() = 0;  // of the current device
  virtual int architecture() = 0;     // its compute capability, major and minor digit: 80, 90
};

// The only symbol of the plug-in that is looked up.
using MakeBackend = Backend* (*)();
inline constexpr const char* kMakeBackend = "longreach_make_cuda_backend";

// Loads both libraries, once. Must come before anything that asks ATen about CUDA: ATen remembers the first answer. Throws
// UserError that says which library is missing and how to get it.
void load();

// Loads if need be and makes sure that there is a device: UserError "no CUDA device: ..." where there is none.
Backend& backend();

}  // namespace longreach::cuda
