// Tensors of another program's files under our names.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "checkpoints/tensor_source.h"

namespace longreach {

// A view: tensors are read from `source`, under the name there, and turned into what they are here.
class RenamedTensors : public TensorSource {
 public:
  struct Origin {
    std::string name;                                     // in the source
    std::vector<int64_t> shape;                           // here
    std::function<at::Tensor(const at::Tensor&)> change;  // of what was read; empty: as it is
  };

  explicit RenamedTensors(std::shared_ptr<const TensorSource> source) : source_(std::move(source)) {}
  // As it is there.
  void add(const std::string& name, const std::string& theirs);
  void add(const std::string& name, Origin origin);

  const std::vector<std::string>& names() const override { return names_; }
  bool contains(const std::string& name) const override { return origins_.count(name) > 0; }
  const std::vector<int64_t>& shape(const std::string& name) const override { return origin(name).shape; }
  at::Tensor tensor(const std::string& name) const override;
  at::Tensor run(const std::string& name, int64_t begin, int64_t elements) const override;

 private:
  const Origin& origin(const std::string& name) const;

  std::shared_ptr<const TensorSource> source_;
  std::vector<std::string> names_;
  std::map<std::string, Origin> origins_;
};

}  // namespace longreach
