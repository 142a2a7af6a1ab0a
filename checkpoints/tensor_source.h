// Tensors by name that are read when they are asked for, whatever files they lie in.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace longreach {

class TensorSource {
 public:
  virtual ~TensorSource() = default;

  virtual const std::vector<std::string>& names() const = 0;  // as they come in the files
  virtual bool contains(const std::string& name) const = 0;
  // Throw CheckpointError when there is none of that name. Tensors are copies, on the CPU, contiguous.
  virtual const std::vector<int64_t>& shape(const std::string& name) const = 0;
  virtual at::Tensor tensor(const std::string& name) const = 0;
  // Elements of the flattened tensor.
  virtual at::Tensor run(const std::string& name, int64_t begin, int64_t elements) const;

 protected:
  TensorSource() = default;
  TensorSource(const TensorSource&) = default;
  TensorSource(TensorSource&&) = default;
  TensorSource& operator=(const TensorSource&) = default;
  TensorSource& operator=(TensorSource&&) = default;
};

}  // namespace longreach
