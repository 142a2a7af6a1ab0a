// Reading: torch_file_writer.cpp writes.
#include "checkpoints/formats/torch_file.h"

#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "checkpoints/safetensors_dtype.h"
#include "checkpoints/safetensors_header.h"
#include "checkpoints/sharded_tensors.h"
#include "core/error.h"

namespace longreach {
namespace {

using std::string_view_literals::operator""sv;

constexpr std::string_view kZip = "PK\x03\x04", kPickle = "/data.pkl";

// How torch.save's files began before they were archives: a pickle of a large number.
constexpr std::string_view kOldTorch = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"sv;

void expect_archive(std::string_view bytes, const std::string& who) {
  check<CheckpointError>(
      !bytes.starts_with(kOldTorch), who,
      ": is in torch.save's form of before PyTorch 1.6, which is not read; write it anew with "
      "torch.save(torch.load(FILE, map_location=\"cpu\", weights_only=True), FILE)");
  check<CheckpointError>(bytes.starts_with(kZip), who, ": is no zip archive, and so no file of torch.save");
}

// The folder in the archive that everything lies in.
std::string root_of(const std::map<std::string, ZipEntry>& archive, const std::string& who) {
  std::string root;
  for (const auto& [name, entry] : archive) {
    if (!name.ends_with(kPickle) || name.find('/') != name.size() - kPickle.size()) continue;
    check<CheckpointError>(root.empty(), who, ": holds more than one NAME/data.pkl");
    root = name.substr(0, name.size() - kPickle.size() + 1);
  }
  check<CheckpointError>(!root.empty(), who,
                         ": is a zip archive without NAME/data.pkl, and so none of torch.save");
  check<CheckpointError>(archive.count(root + "constants.pkl") == 0, who,
                         ": is a TorchScript program; files of torch.save with tensors alone are read");
  const auto order = archive.find(root + "byteorder");
  check<CheckpointError>(order == archive.end() || order->second.bytes == "little", who,
                         ": `byteorder` is not \"little\"; only that is read");
  return root;
}

int64_t elements_of(const std::vector<int64_t>& shape) {
  int64_t elements = 1;
  for (const int64_t size : shape) elements *= size;
  return elements;
}

bool is_contiguous(const PickledTensor& tensor) {
  int64_t expected = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != expected) return false;
    expected *= tensor.shape[i];
  }
  return true;
}

}  // namespace

TorchFile::TorchFile(const std::string& path) : file_(path) {
  const std::string who = one_line(path);
  expect_archive(file_.bytes(), who);
  archive_ = read_zip_directory(file_.bytes(), who);
  root_ = root_of(archive_, who);
  const std::string pickle = root_ + "data.pkl", where = one_line(text(path, ": `", pickle, "`"));
  for (PickledTensor& tensor : read_pickled_tensors(checked_bytes(archive_.at(pickle), where), where))
    add(std::move(tensor));
}

void TorchFile::add(PickledTensor tensor) {
  const std::string who = place(tensor);
  const auto found = archive_.find(root_ + "data/" + tensor.storage);
  check<CheckpointError>(found != archive_.end(), who, ": its bytes, entry data/",
                         one_line(tensor.storage, 100), " of the archive, are missing");
  expect_stored(found->second, who);
  const int64_t size = safetensors_element_size(tensor.dtype, who);
  const auto bytes = static_cast<int64_t>(found->second.bytes.size());
  check<CheckpointError>(bytes % size == 0 && bytes / size == tensor.storage_elements, who,
                         ": its storage is said to have ", tensor.storage_elements, " elements of ", size,
                         " bytes, entry data/", one_line(tensor.storage, 100), " has ", bytes, " bytes");
  names_.push_back(tensor.name);
  tensors_.emplace(tensor.name, std::move(tensor));
}

std::string TorchFile::place(const PickledTensor& tensor) const {
  return one_line(text(file_.path(), ": `", tensor.name, "`"));
}

const PickledTensor& TorchFile::entry(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end())
    throw CheckpointError(one_line(text(file_.path(), ": has no tensor `", name, "`")));
  return found->second;
}

// Of the tensor's storage, from element `begin` of it on.
at::Tensor TorchFile::elements(const PickledTensor& tensor, int64_t begin, int64_t count) const {
  const std::string who = place(tensor), name = root_ + "data/" + tensor.storage;
  const ZipEntry& storage = archive_.at(name);
  if (checked_.count(name) == 0) {
    checked_bytes(storage, who);
    checked_.insert(name);
  }
  at::Tensor values = at::empty({count}, at::TensorOptions().dtype(safetensors_dtype(tensor.dtype, who)));
  const size_t size = values.element_size();
  const std::string_view part =
      count == 0 ? std::string_view()
                 : storage.bytes.substr(static_cast<size_t>(begin) * size, values.nbytes());
  check<CheckpointError>(
      values.scalar_type() != at::kBool ||
          std::all_of(part.begin(), part.end(), [](char byte) { return byte == 0 || byte == 1; }),
      who, ": holds a truth value that is neither 0 nor 1");
  if (count > 0) file_.copy(part, values.mutable_data_ptr());
  return values;
}

at::Tensor TorchFile::tensor(const std::string& name) const {
  const PickledTensor& tensor = entry(name);
  const int64_t count = elements_of(tensor.shape);
  if (count == 0 || is_contiguous(tensor)) return elements(tensor, tensor.offset, count).view(tensor.shape);
  int64_t span = 1;
  for (size_t i = 0; i < tensor.shape.size(); ++i) span += (tensor.shape[i] - 1) * tensor.strides[i];
  return elements(tensor, tensor.offset, span).as_strided(tensor.shape, tensor.strides).contiguous();
}

at::Tensor TorchFile::run(const std::string& name, int64_t begin, int64_t count) const {
  const PickledTensor& tensor = entry(name);
  const int64_t all = elements_of(tensor.shape);
  if (!is_contiguous(tensor)) return TensorSource::run(name, begin, count);
  check<CheckpointError>(begin >= 0 && count >= 0 && begin <= all - count, place(tensor), ": has no ", count,
                         " elements from ", begin, " on");
  return elements(tensor, tensor.offset + begin, count);
}

std::unique_ptr<TensorSource> open_tensor_file(const std::string& path) {
  const MappedFile file(path);
  const std::string_view bytes = file.bytes();
  if (bytes.starts_with(kZip) || bytes.starts_with(kOldTorch)) return std::make_unique<TorchFile>(path);
  return std::make_unique<ShardedTensors>(std::vector<std::string>{path}, ShardedTensors::Parts::kWhole);
}

}  // namespace longreach
