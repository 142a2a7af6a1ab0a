// A launch plan: everything that starts one kernel, as plain data. An operator's plan function makes it from
// shapes and pointers; the CUDA launcher gives it to a device, the tests give the same plan to the PTX
// interpreter.
//
// Every kernel is `extern "C" __global__` and takes exactly one argument by value: its parameter struct.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

namespace longreach::cuda {

// A two- to five-dimensional box of global memory for the tensor memory accelerator (sm_90a). Sizes and boxes
// in elements, strides in bytes (multiples of 16; strides[i] belongs to dimension i + 1), dimension 0 dense.
// Elements outside are zero.
struct TensorMap {
  const void* data = nullptr;
  uint32_t element_bytes = 2;
  uint32_t rank = 2;
  std::array<uint64_t, 5> size{};
  std::array<uint64_t, 4> stride{};
  std::array<uint32_t, 5> box{};
  uint32_t swizzle_bytes = 128;  // 0, 32, 64 or 128
};

// The place of an encoded tensor map inside a parameter struct; the launcher writes it.
struct alignas(64) EncodedTensorMap {
  std::byte bytes[128];
};

struct TensorMapArgument {
  size_t offset;  // of the EncodedTensorMap, in bytes from the start of the parameters
  TensorMap map;
};

struct Dim3 {
  uint32_t x = 1, y = 1, z = 1;
};

struct Launch {
  std::string kernel;
  Dim3 grid, block;
  uint32_t shared_bytes = 0;  // dynamic shared memory a block
  uint32_t cluster = 1;       // blocks a cluster along x
  std::vector<std::byte> parameters;
  std::vector<TensorMapArgument> tensor_maps;
};

// The launches of an operator, in order, and their work space:
//
//   Plan plan = plan_forward(params, nullptr);             // how much work space, and what it begins with
//   void* workspace = ...;                                 // plan.workspace_bytes, aligned to 256
//   copy plan.upload to the start of workspace;
//   launch all of plan_forward(params, workspace).launches in order
//
// The device launcher and the tests with the PTX interpreter use the same plans.
struct Plan {
  std::vector<Launch> launches;
  size_t workspace_bytes = 0;
  std::vector<std::byte> upload;  // tables; often empty
};

template <class Parameters>
Launch make_launch(std::string kernel, Dim3 grid, Dim3 block, uint32_t shared_bytes,
                   const Parameters& parameters) {
  static_assert(std::is_trivially_copyable_v<Parameters>);
  Launch launch{.kernel = std::move(kernel), .grid = grid, .block = block, .shared_bytes = shared_bytes};
  launch.parameters.resize(sizeof(Parameters));
  std::memcpy(launch.parameters.data(), &parameters, sizeof(Parameters));
  return launch;
}

}  // namespace longreach::cuda
