// The JSON header of a safetensors file, parsed as a stream: memory is bounded by the header's size whatever
// it holds. Without LibTorch.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace longreach {

struct SafetensorsEntry {
  std::string dtype;  // as in the file: F32, BF16, I64, ...
  std::vector<int64_t> shape;
  int64_t begin = 0, end = 0;  // bytes after the header
};

struct SafetensorsHeader {
  std::map<std::string, SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;
};

// `json`: the header's bytes; `data_bytes`: what follows it in the file; `path`: for errors. Checks
// everything that SafetensorsFile promises. Throws CheckpointError.
SafetensorsHeader parse_safetensors_header(std::string_view json, int64_t data_bytes,
                                           const std::string& path);

// Bytes of an element of a dtype of the file. Throws CheckpointError naming `who` and the dtypes there are.
int64_t safetensors_element_size(const std::string& dtype, const std::string& who);

}  // namespace longreach
