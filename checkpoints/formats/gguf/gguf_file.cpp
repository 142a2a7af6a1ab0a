#include "checkpoints/formats/gguf/gguf_file.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace longreach {

GgufFile::GgufFile(const std::string& path)
    : file_(path), header_(parse_gguf_header(file_.bytes(), file_.path())) {
  for (const GgufTensor& tensor : header_.tensors) {
    index_.emplace(tensor.name, names_.size());
    names_.push_back(tensor.name);
  }
}

const GgufTensor& GgufFile::entry(const std::string& name) const {
  const auto found = index_.find(name);
  if (found == index_.end())
    throw CheckpointError(one_line(text(file_.path(), ": has no tensor `", name, "`")));
  return header_.tensors[found->second];
}

at::Tensor GgufFile::tensor(const std::string& name) const {
  const GgufTensor& tensor = entry(name);
  return run(name, 0, tensor.elements()).view(tensor.shape);
}

at::Tensor GgufFile::run(const std::string& name, int64_t begin, int64_t elements) const {
  const GgufTensor& tensor = entry(name);
  if (begin < 0 || elements < 0 || begin > tensor.elements() - elements)
    throw CheckpointError(
        one_line(text(file_.path(), ": `", name, "`: has no ", elements, " elements from ", begin, " on")));
  at::Tensor out = at::empty({elements}, at::kFloat);
  if (elements == 0) return out;
  constexpr int64_t kPiece = int64_t{1} << 15;  // values of a piece; a multiple of every block
  std::vector<float> piece(static_cast<size_t>(kPiece));
  float* to = out.mutable_data_ptr<float>();
  const GgmlType& type = *tensor.type;
  const int64_t end = begin + elements;
  for (int64_t at = begin / type.block * type.block; at < end; at += kPiece) {
    const int64_t blocks = (std::min(kPiece, end - at) + type.block - 1) / type.block;
    const std::string_view bytes = tensor.bytes.substr(static_cast<size_t>(at / type.block * type.bytes),
                                                       static_cast<size_t>(blocks * type.bytes));
    type.dequantize(reinterpret_cast<const uint8_t*>(bytes.data()), blocks, piece.data());
    const int64_t first = std::max(at, begin), last = std::min(at + kPiece, end);
    std::memcpy(to + (first - begin), piece.data() + (first - at),
                static_cast<size_t>(last - first) * sizeof(float));
  }
  file_.release(tensor.bytes);
  return out;
}

}  // namespace longreach
