// The tensors of several files as those of one.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoints/tensor_source.h"

namespace longreach {

class JoinedTensors : public TensorSource {
 public:
  // Opens the files as open_tensor_file does. Throws CheckpointError naming file and tensor when two files
  // hold one.
  explicit JoinedTensors(const std::vector<std::string>& paths);

  const std::vector<std::string>& names() const override { return names_; }
  bool contains(const std::string& name) const override { return files_.count(name) > 0; }
  const std::vector<int64_t>& shape(const std::string& name) const override { return file(name).shape(name); }
  at::Tensor tensor(const std::string& name) const override { return file(name).tensor(name); }
  at::Tensor run(const std::string& name, int64_t begin, int64_t elements) const override {
    return file(name).run(name, begin, elements);
  }

 private:
  const TensorSource& file(const std::string& name) const;

  std::vector<std::string> names_;
  std::map<std::string, std::shared_ptr<const TensorSource>> files_;  // by tensor
};

}  // namespace longreach
