// The GGUF container of ggml: typed keys, and tensors of quantised blocks.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "checkpoints/formats/gguf/gguf_header.h"
#include "checkpoints/mapped_file.h"
#include "checkpoints/tensor_source.h"

namespace longreach {

// Versions 2 and 3, little-endian. Everything is checked before use: types, lengths, UTF-8, names that come
// twice, shapes times size, bounds, alignment, overlaps and holes; hostile counts allocate nothing. Throws
// CheckpointError naming the file and the key or tensor. Limits: 65,536 keys, 200,000 tensors, 4 dimensions.
// Not read: arrays of arrays, and element types other than those of ggml_type.
class GgufFile : public TensorSource {
 public:
  explicit GgufFile(const std::string& path);

  const GgufKeys& keys() const { return header_.keys; }
  const std::vector<std::string>& names() const override { return names_; }
  bool contains(const std::string& name) const override { return index_.count(name) > 0; }
  const std::vector<int64_t>& shape(const std::string& name) const override { return entry(name).shape; }
  const GgmlType& type(const std::string& name) const { return *entry(name).type; }
  // float32 whatever the file's type.
  at::Tensor tensor(const std::string& name) const override;
  // Of no block outside the run anything is read.
  at::Tensor run(const std::string& name, int64_t begin, int64_t elements) const override;

 private:
  const GgufTensor& entry(const std::string& name) const;

  MappedFile file_;
  GgufHeader header_;
  std::vector<std::string> names_;
  std::map<std::string, size_t> index_;
};

}  // namespace longreach
