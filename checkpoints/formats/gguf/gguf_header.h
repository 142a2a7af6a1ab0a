// What stands before the tensors of a GGUF file: keys, and where each tensor lies.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoints/formats/gguf/ggml_type.h"
#include "checkpoints/formats/gguf/gguf_keys.h"

namespace longreach {

struct GgufTensor {
  std::string name;
  std::vector<int64_t> shape;  // the outermost dimension first, as everywhere here; the file has it last
  const GgmlType* type = nullptr;
  std::string_view bytes;  // in the file

  int64_t elements() const { return static_cast<int64_t>(bytes.size()) / type->bytes * type->block; }
};

struct GgufHeader {
  GgufKeys keys;
  std::vector<GgufTensor> tensors;  // in the file's order
};

// `file`: all of it, to which the result points; `path`: for errors. Checks everything that GgufFile
// promises. Throws CheckpointError naming key or tensor.
GgufHeader parse_gguf_header(std::string_view file, const std::string& path);

}  // namespace longreach
