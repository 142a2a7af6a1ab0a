// The pickle inside a file of torch.save, read by a list of what a dictionary of tensors consists of: every
// other opcode and every other name of Python is an error, and nothing is ever called. Without LibTorch.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace longreach {

struct PickledTensor {
  std::string name;
  std::string dtype;    // as safetensors files name it: F32, BF16, I64, ...
  std::string storage;  // the key of its bytes: archive entry data/KEY
  int64_t storage_elements = 0;
  int64_t offset = 0;                   // element of the storage at which it begins
  std::vector<int64_t> shape, strides;  // of elements
};

// The tensors of a dict, an OrderedDict or a state_dict, in its order; parameters count as tensors. All lie
// within their storages and have no more elements than those. Throws CheckpointError that begins with `who`
// and names the opcode or name that is not allowed, or the key whose value is no tensor. Memory: a small
// multiple of the program's size. Limits: 100 MB of program, 200,000 tensors, 32 dimensions.
std::vector<PickledTensor> read_pickled_tensors(std::string_view program, const std::string& who);

}  // namespace longreach
