// The door to CUDA. The program links the CPU half of LibTorch only; the CUDA half and our kernels are loaded
// when they are asked for, so that one binary serves machines with and without a GPU.
//
//   load()          libtorch_cuda.so (it registers CUDA with ATen), then liblongreach_cuda.so (kernels and
//                   launcher)
//   run(launches)   on the current stream of the current device
//   static_table()  what the compilers said of the kernels; needs neither device nor driver
//   libraries()     which CUDA runtime, cuDNN and NCCL are loaded
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

// The symbols of the plug-in that are looked up.
using MakeBackend = Backend* (*)();
inline constexpr const char* kMakeBackend = "longreach_make_cuda_backend";
using StaticTable = const char* (*)();
inline constexpr const char* kStaticTable = "longreach_cuda_static_table";
using Libraries = const char* (*)();
inline constexpr const char* kLibraries = "longreach_cuda_libraries";

// Loads both libraries, once. Must come before anything that asks ATen about CUDA: ATen remembers the first
// answer. Throws UserError that says which library is missing and how to get it.
void load();

// Loads if need be and makes sure that there is a device: UserError "no CUDA device: ..." where there is
// none.
Backend& backend();

// Puts another backend in the device's place, for tests: the PTX interpreter, over tensors in the host's
// memory. Null: the device again. While one is there, operators take the device's path for every tensor.
void replace_backend(Backend* other);
bool backend_is_replaced();

// The text of static_report.h that lies in the plug-in, and the versions of the libraries beneath it. Both
// load the plug-in and need no device. Throw UserError where there is none.
std::string static_table();
std::string libraries();

// What the plug-in exports under that name, for who knows what it is. Loads both libraries. Throws UserError
// where one of them, or the name, is missing.
void* exported(const char* name);

}  // namespace longreach::cuda
