#include "checkpoints/checkpoint_reader.h"

#include <filesystem>

#include "checkpoints/checked_file.h"
#include "checkpoints/folders.h"
#include "core/error.h"

namespace longreach {
namespace {

constexpr int64_t kMaxText = int64_t{1} << 30;

// The manifest; it must be that of the step the folder is named after, if it is named after one.
Manifest manifest_of(const std::string& folder) {
  Manifest manifest = read_manifest(folder);
  const int64_t named = step_named_by(folder);
  check<CheckpointError>(
      named < 0 || named == manifest.step, one_line(folder), ": holds the checkpoint of step ", manifest.step,
      ": the folder was renamed or swapped; expected the name ", step_folder("", manifest.step).substr(1));
  return manifest;
}

void verify_size(const std::string& path, const ManifestFile& file) {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path, error);
  if (error) throw CheckpointError(one_line(text(path, ": cannot be read: ", error.message())));
  if (static_cast<int64_t>(bytes) != file.sum.size)
    throw CheckpointError(one_line(text(path, ": has ", bytes, " bytes, the manifest says ", file.sum.size)));
}

void verify_contents(const std::string& path, const ManifestFile& file) {
  verify_size(path, file);
  const FileSum sum = sum_of_file(path);
  if (sum.size != file.sum.size || sum.xxh3 != file.sum.xxh3)
    throw CheckpointError(one_line(text(path, ": is damaged: its checksum is not the one in the manifest")));
}

}  // namespace

void verify_checkpoint(const std::string& folder, bool with_optimizer, int64_t first, int64_t every) {
  const Manifest manifest = manifest_of(folder);
  for (auto i = static_cast<size_t>(first); i < manifest.files.size(); i += static_cast<size_t>(every)) {
    const ManifestFile& file = manifest.files[i];
    const std::string path = folder + "/" + file.name;
    const bool used = with_optimizer || !file.name.starts_with(kOptimizerPrefix);
    used ? verify_contents(path, file) : verify_size(path, file);
  }
}

std::optional<std::string> load_text(const std::string& folder, const std::string& name) {
  for (const ManifestFile& file : manifest_of(folder).files) {
    if (file.name != name) continue;
    const std::string path = folder + "/" + name;
    verify_contents(path, file);
    return read_text_file(path, kMaxText);
  }
  return std::nullopt;
}

CheckpointReader::CheckpointReader(const std::string& folder, bool with_optimizer)
    : folder_(folder),
      manifest_(manifest_of(folder)),
      model_(tensors(kModelPrefix)),
      optimizer_(tensors(with_optimizer ? kOptimizerPrefix : "")) {
  check<CheckpointError>(!model_.names().empty(), one_line(folder), ": holds no model shard");
  for (const ManifestFile& file : manifest_.files)
    if (!file.name.starts_with(kModelPrefix) && !file.name.starts_with(kOptimizerPrefix))
      texts_[file.name] = read_text_file(folder + "/" + file.name, kMaxText);
}

// Of the files whose names begin like that; of none where that is empty.
ShardedTensors CheckpointReader::tensors(std::string_view prefix) const {
  std::vector<std::string> paths;
  for (const ManifestFile& file : manifest_.files)
    if (!prefix.empty() && file.name.starts_with(prefix)) paths.push_back(folder_ + "/" + file.name);
  return {paths, manifest_.version == 1 ? ShardedTensors::Parts::kWhole : ShardedTensors::Parts::kRuns};
}

}  // namespace longreach
