// The safetensors container: 8 bytes of header length, a JSON header, the tensors.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "checkpoints/safetensors_header.h"

namespace longreach {

// A file mapped into memory. Everything is checked before use: header length, JSON, dtypes, shapes times
// size, bounds, overlaps and holes; hostile sizes allocate nothing. Throws CheckpointError naming the file
// and the tensor. Dtypes: F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL. Limits: header 100 MB (as in the format's
// own library), 200,000 tensors, 200,000 metadata entries, 32 dimensions.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;

  const std::string& path() const;
  const std::map<std::string, SafetensorsEntry>& entries() const;
  const std::map<std::string, std::string>& metadata() const;
  bool contains(const std::string& name) const;
  at::Tensor tensor(const std::string& name) const;  // a copy, on the CPU, in the file's dtype
  // Elements of the flattened tensor, from `begin` on, as many as `to` has, which is contiguous, on the CPU
  // and of the file's dtype. No other byte of the tensor is read.
  void copy_run(const std::string& name, int64_t begin, const at::Tensor& to) const;
  int64_t bytes_read() const;  // of tensors, so far
  std::vector<std::string> names_in_file_order() const;

 private:
  struct Mapping;
  std::unique_ptr<Mapping> mapping_;
};

class CheckedFile;

// Writes to `path` directly (callers rename a finished file); checks every write, so that a full disk is a
// CheckpointError, and removes what it could not finish. Tensors are stored in the order given, contiguous,
// each name once.
void write_safetensors(const std::string& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});
// The same into an open file, which the caller finishes.
void write_safetensors(CheckedFile& file, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace longreach
