// The door to CUDA. The program links the CPU half of LibTorch only; the CUDA half and our kernels are loaded when they are
// asked for, so that one binary serves machines with and without a GPU.
//
//   load()          libtorch_cuda.so (it registers CUDA with ATen), then liblongreach_cuda.so (kernels and launcher)
//   run(launches)   on the current stream of the current device
//   static_table()  what the compilers said of the kernels; needs neither device nor driver
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

// The two symbols of the plug-in that are looked up.
using MakeBackend = Backend* (*)();
inline constexpr const char* kMakeBackend = "longreach_make_cuda_backend";
using StaticTable = const char* (*)();
inline constexpr const char* kStaticTable = "longreach_cuda_static_table";

// Loads both libraries, once. Must come before anything that asks ATen about CUDA: ATen remembers the first answer. Throws
// UserError that says which library is missing and how to get it.
void load();

// Loads if need be and makes sure that there is a device: UserError "no CUDA device: ..." where there is none.
Backend& backend();

// The text of static_report.h that lies in the plug-in. Loads the plug-in alone. Throws UserError where there is none.
std::string static_table();

}  // namespace longreach::cuda
