// Tensors that lie in several safetensors files: whole ones, or runs of flattened ones.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "checkpoints/safetensors.h"
#include "checkpoints/tensor_source.h"

namespace longreach {

// A part of a tensor, flattened: elements from `begin` on.
struct TensorRun {
  std::string name;
  std::vector<int64_t> shape;  // of the whole tensor
  int64_t begin = 0;
  at::Tensor values;
};

// Runs as a file holds them: one-dimensional tensors, and in the metadata, by name, {"shape": [...], "begin":
// N}. Runs without elements are left out, but of a tensor that has none. Each name once.
void write_runs(CheckedFile& file, const std::vector<TensorRun>& runs);

class ShardedTensors : public TensorSource {
 public:
  enum class Parts { kWhole, kRuns };

  // Maps the files and reads their headers. Throws CheckpointError naming file and tensor when runs overlap
  // or leave a hole, or when files differ in a tensor's shape or dtype.
  ShardedTensors(const std::vector<std::string>& paths, Parts parts);

  const std::vector<std::string>& names() const override { return names_; }
  bool contains(const std::string& name) const override { return tensors_.count(name) > 0; }
  const std::vector<int64_t>& shape(const std::string& name) const override { return entry(name).shape; }
  // In the files' dtype; of a run nothing else is read.
  at::Tensor run(const std::string& name, int64_t begin, int64_t elements) const override;
  at::Tensor tensor(const std::string& name) const override;
  int64_t bytes_read() const;  // of tensors, so far

 private:
  struct Piece {
    size_t file;
    int64_t begin, end;  // elements of the tensor
  };
  struct Entry {
    std::string dtype;
    std::vector<int64_t> shape;
    int64_t elements;
    std::vector<Piece> pieces;
  };

  const Entry& entry(const std::string& name) const;
  void add(size_t file, const std::string& name, Parts parts);
  void expect_whole(const std::string& name, Entry& entry) const;
  std::string place(size_t file, const std::string& name) const;

  std::vector<SafetensorsFile> files_;
  std::vector<std::string> names_;
  std::map<std::string, Entry> tensors_;
};

}  // namespace longreach
