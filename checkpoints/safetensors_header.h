// The JSON header of a safetensors file, parsed as a stream: memory is bounded by the header's size whatever
// it holds.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <string_view>

#include "checkpoints/safetensors.h"

namespace longreach {

struct SafetensorsHeader {
  std::map<std::string, SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;
};

// `json`: the header's bytes; `data_bytes`: what follows it in the file; `path`: for errors. Checks
// everything that SafetensorsFile promises. Throws CheckpointError.
SafetensorsHeader parse_safetensors_header(std::string_view json, int64_t data_bytes,
                                           const std::string& path);

// The file's name of a dtype, and back. Throws CheckpointError naming `who`.
std::string safetensors_dtype_name(at::ScalarType dtype, const std::string& who);
at::ScalarType safetensors_dtype(const std::string& name, const std::string& who);

}  // namespace longreach
