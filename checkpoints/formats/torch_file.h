// Files of torch.save (.pth, .pt, .bin): a zip archive of one pickle and the tensors' bytes.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "checkpoints/formats/pickle.h"
#include "checkpoints/formats/zip_directory.h"
#include "checkpoints/mapped_file.h"
#include "checkpoints/tensor_source.h"

namespace longreach {

// A dict of tensors or parameters, or a state_dict, as torch.save has written it since PyTorch 1.6, mapped
// into memory. Nothing in it is run: formats/pickle.h. A tensor's bytes are held against the archive's
// checksum when it is first read. Throws CheckpointError naming the file and the tensor.
class TorchFile : public TensorSource {
 public:
  explicit TorchFile(const std::string& path);

  const std::vector<std::string>& names() const override { return names_; }
  bool contains(const std::string& name) const override { return tensors_.count(name) > 0; }
  const std::vector<int64_t>& shape(const std::string& name) const override { return entry(name).shape; }
  at::Tensor tensor(const std::string& name) const override;
  at::Tensor run(const std::string& name, int64_t begin, int64_t elements) const override;

 private:
  const PickledTensor& entry(const std::string& name) const;
  void add(PickledTensor tensor);
  std::string place(const PickledTensor& tensor) const;
  at::Tensor elements(const PickledTensor& tensor, int64_t begin, int64_t count) const;

  MappedFile file_;
  std::map<std::string, ZipEntry> archive_;
  std::string root_;  // of the archive's names
  std::vector<std::string> names_;
  std::map<std::string, PickledTensor> tensors_;
  mutable std::set<std::string> checked_;  // storages
};

// A plain dict of contiguous tensors, which torch.load(path, weights_only=True) reads; of fewer than 4 GiB.
// Every write is checked, and what could not be finished is removed. Throws CheckpointError.
void write_torch_file(const std::string& path,
                      const std::vector<std::pair<std::string, at::Tensor>>& tensors);

// A file of named tensors, whichever of the two it is by its first bytes: of torch.save or of safetensors.
std::unique_ptr<TensorSource> open_tensor_file(const std::string& path);

}  // namespace longreach
