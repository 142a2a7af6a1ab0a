// Reading (memory-mapped) and writing of safetensors files.
#include "checkpoints/safetensors.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "checkpoints/checked_file.h"
#include "checkpoints/mapped_file.h"
#include "checkpoints/safetensors_dtype.h"
#include "core/error.h"

namespace longreach {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;

}  // namespace

struct SafetensorsFile::Mapping {
  explicit Mapping(const std::string& path) : file(path) {
    const std::string_view all = file.bytes();
    check<CheckpointError>(all.size() >= 8, one_line(path), ": has ", all.size(),
                           " bytes; a safetensors file has at least 8");
    uint64_t length = 0;
    std::memcpy(&length, all.data(), sizeof length);  // little-endian, as this machine
    const uint64_t room = all.size() - 8;
    check<CheckpointError>(length <= room && length <= kMaxHeader, one_line(path), ": header of ", length,
                           " bytes, allowed: at most ", std::min<uint64_t>(room, kMaxHeader));
    data = all.substr(8 + length);
    header = parse_safetensors_header(all.substr(8, length), static_cast<int64_t>(data.size()), path);
  }

  const SafetensorsEntry& entry(const std::string& name) const {
    const auto found = header.entries.find(name);
    if (found == header.entries.end())
      throw CheckpointError(one_line(text(file.path(), ": has no tensor `", name, "`")));
    return found->second;
  }

  MappedFile file;
  std::string_view data;
  int64_t bytes_read = 0;
  SafetensorsHeader header;
};

SafetensorsFile::SafetensorsFile(const std::string& path) : mapping_(std::make_unique<Mapping>(path)) {}
SafetensorsFile::~SafetensorsFile() = default;
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;

const std::string& SafetensorsFile::path() const { return mapping_->file.path(); }
const std::map<std::string, SafetensorsEntry>& SafetensorsFile::entries() const {
  return mapping_->header.entries;
}
const std::map<std::string, std::string>& SafetensorsFile::metadata() const {
  return mapping_->header.metadata;
}
bool SafetensorsFile::contains(const std::string& name) const {
  return mapping_->header.entries.count(name) != 0;
}

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const SafetensorsEntry& entry = mapping_->entry(name);
  const at::ScalarType dtype = safetensors_dtype(entry.dtype, text(path(), ": `", name, "`"));
  at::Tensor tensor = at::empty(entry.shape, at::TensorOptions().dtype(dtype));
  copy_run(name, 0, tensor);
  return tensor;
}

void SafetensorsFile::copy_run(const std::string& name, int64_t begin, const at::Tensor& to) const {
  const SafetensorsEntry& entry = mapping_->entry(name);
  const std::string who = text(path(), ": `", name, "`");
  check<CheckpointError>(to.scalar_type() == safetensors_dtype(entry.dtype, who) && to.is_contiguous(),
                         one_line(who), ": is ", entry.dtype, ", what is to hold it is not");
  const auto size = static_cast<int64_t>(to.element_size()), bytes = static_cast<int64_t>(to.nbytes());
  const int64_t room = entry.end - entry.begin;
  check<CheckpointError>(begin >= 0 && begin <= room / size && bytes <= room - begin * size, one_line(who),
                         ": has no elements ", begin, " to ", begin + to.numel());
  const std::string_view from =
      mapping_->data.substr(static_cast<size_t>(entry.begin + begin * size), static_cast<size_t>(bytes));
  if (to.scalar_type() == at::kBool &&
      std::any_of(from.begin(), from.end(), [](char byte) { return byte != 0 && byte != 1; }))
    throw CheckpointError(one_line(text(who, ": holds a BOOL that is neither 0 nor 1")));
  mapping_->bytes_read += bytes;
  mapping_->file.copy(from, to.mutable_data_ptr());
}

int64_t SafetensorsFile::bytes_read() const { return mapping_->bytes_read; }

std::vector<std::string> SafetensorsFile::names_in_file_order() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries()) names.push_back(name);
  std::stable_sort(names.begin(), names.end(), [this](const std::string& a, const std::string& b) {
    const SafetensorsEntry &left = entries().at(a), &right = entries().at(b);
    return std::pair(left.begin, left.end) < std::pair(right.begin, right.end);
  });
  return names;
}

void write_safetensors(CheckedFile& file, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string> names;
  int64_t at = 0;
  for (const auto& [name, tensor] : tensors) {
    const std::string who = text(file.path(), ": `", name, "`");
    check<CheckpointError>(tensor.defined(), one_line(who), ": is undefined");
    check<CheckpointError>(name != "__metadata__" && names.insert(name).second, one_line(who),
                           ": name twice or reserved");
    const auto bytes = static_cast<int64_t>(tensor.nbytes());
    header[name] = {{"dtype", safetensors_dtype_name(tensor.scalar_type(), who)},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {at, at + bytes}}};
    at += bytes;
  }
  std::string json;
  try {
    json = header.dump();
  } catch (const nlohmann::json::exception&) {
    throw CheckpointError(one_line(text(file.path(), ": a tensor's name or the metadata is not UTF-8")));
  }
  json.append((8 - json.size() % 8) % 8, ' ');  // the data starts aligned
  const uint64_t length = json.size();
  file.write(&length, sizeof length);
  file.write(json);
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor whole = tensor.detach().cpu().contiguous();
    file.write(whole.const_data_ptr(), whole.nbytes());
  }
}

void write_safetensors(const std::string& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  CheckedFile file(path);
  write_safetensors(file, tensors, metadata);
  file.finish();
}

}  // namespace longreach
