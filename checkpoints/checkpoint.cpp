// Saving, loading and retention of native checkpoints.
#include "checkpoints/checkpoint.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <set>

#include "checkpoints/checked_file.h"
#include "checkpoints/folders.h"
#include "checkpoints/manifest.h"
#include "checkpoints/safetensors.h"
#include "core/error.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kModelPrefix = "model-", kOptimizerPrefix = "optimizer-";
constexpr int64_t kMaxText = int64_t{1} << 30;
constexpr const char *kModelShard = "model-00000.safetensors",
                     *kOptimizerShard = "optimizer-00000.safetensors";

// Not the folders above: what has been removed or renamed meanwhile is not made again.
void make_folder(const std::string& path) {
  std::error_code error;
  fs::create_directory(path, error);
  if (error) throw CheckpointError(one_line(text(path, ": cannot be created: ", error.message())));
}

// A checkpoint being written; vanishes unless it is published.
class TemporaryFolder {
 public:
  TemporaryFolder(const std::string& root, int64_t step, const WritePoint& point)
      : root_(root), step_(step), path_(step_folder(root, step) + ".tmp"), point_(point) {
    make_folder(root);
    reach(point_);
    make_folder(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!published_) fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  void add_tensors(const std::string& name, const NamedTensors& tensors) {
    add_file(name, [&](CheckedFile& file) { write_safetensors(file, tensors); });
  }
  void add_text(const std::string& name, const std::string& contents) {
    const bool reserved =
        name == kManifestName || name.starts_with(kModelPrefix) || name.starts_with(kOptimizerPrefix);
    check<CheckpointError>(is_safe_name(name) && !reserved, one_line(path_), ": file name `",
                           one_line(name, 100), "` is not allowed");
    fs::path parent = path_;
    for (const fs::path& part : fs::path(name).parent_path()) {
      parent /= part;
      make_folder(parent.string());
      folders_.insert(parent.string());
    }
    add_file(name, [&](CheckedFile& file) { file.write(contents); });
  }
  std::string publish() {
    manifest_.step = step_;
    write_file(kManifestName, [&](CheckedFile& file) { file.write(manifest_text(manifest_)); });
    folders_.insert(path_);
    for (const std::string& folder : folders_) {
      reach(point_);
      sync_folder(folder);
    }
    publish_folder(root_, step_, point_);
    published_ = true;
    return step_folder(root_, step_);
  }

 private:
  using Writer = std::function<void(CheckedFile&)>;

  FileSum write_file(const std::string& name, const Writer& write) const {
    reach(point_);
    CheckedFile file(path_ + "/" + name);
    reach(point_);
    write(file);
    reach(point_);
    return file.finish();
  }
  void add_file(const std::string& name, const Writer& write) {
    manifest_.files.push_back({name, write_file(name, write)});
  }

  const std::string root_;
  const int64_t step_;
  const std::string path_;
  const WritePoint& point_;
  std::set<std::string> folders_;  // to be flushed
  Manifest manifest_;
  bool published_ = false;
};

void verify_size(const std::string& folder, const ManifestFile& file) {
  const std::string path = folder + "/" + file.name;
  std::error_code error;
  const auto bytes = fs::file_size(path, error);
  if (error) throw CheckpointError(one_line(text(path, ": cannot be read: ", error.message())));
  if (static_cast<int64_t>(bytes) != file.sum.size)
    throw CheckpointError(one_line(text(path, ": has ", bytes, " bytes, the manifest says ", file.sum.size)));
}

void verify_contents(const std::string& folder, const ManifestFile& file) {
  verify_size(folder, file);
  const std::string path = folder + "/" + file.name;
  const FileSum sum = sum_of_file(path);
  if (sum.size != file.sum.size || sum.xxh3 != file.sum.xxh3)
    throw CheckpointError(one_line(text(path, ": is damaged: its checksum is not the one in the manifest")));
}

void append_tensors(const std::string& path, NamedTensors& to) {
  const SafetensorsFile file(path);
  std::set<std::string> known;
  for (const auto& [name, tensor] : to) known.insert(name);
  for (const std::string& name : file.names_in_file_order()) {
    if (known.count(name))
      throw CheckpointError(one_line(text(path, ": `", name, "` is also in another shard")));
    to.emplace_back(name, file.tensor(name));
  }
}

// The manifest; it must be that of the step the folder is named after, if it is named after one.
Manifest manifest_of(const std::string& folder) {
  Manifest manifest = read_manifest(folder);
  const int64_t named = step_named_by(folder);
  check<CheckpointError>(
      named < 0 || named == manifest.step, one_line(folder), ": holds the checkpoint of step ", manifest.step,
      ": the folder was renamed or swapped; expected the name ", step_folder("", manifest.step).substr(1));
  return manifest;
}

CheckpointContents load_step(const std::string& root, int64_t step, bool with_optimizer) {
  const auto all = list_checkpoints(root);
  std::vector<std::string> steps;
  for (const auto& [have, folder] : all) {
    if (have == step) return load_checkpoint(folder, with_optimizer);
    steps.push_back(std::to_string(have));
  }
  throw CheckpointError(one_line(
      text(root, ": has no checkpoint of step ", step, "; there: ", steps.empty() ? "none" : join(steps))));
}

}  // namespace

std::string save_checkpoint(const std::string& root, const CheckpointContents& contents,
                            const WritePoint& point) {
  check<CheckpointError>(contents.step >= 0, one_line(root), ": step ", contents.step,
                         ", allowed: at least 0");
  make_folder(root);
  reach(point);
  clean_leftovers(root);
  TemporaryFolder folder(root, contents.step, point);
  folder.add_tensors(kModelShard, contents.model);
  if (!contents.optimizer.empty()) folder.add_tensors(kOptimizerShard, contents.optimizer);
  for (const auto& [name, value] : contents.texts) folder.add_text(name, value);
  return folder.publish();
}

void verify_checkpoint(const std::string& folder) {
  for (const ManifestFile& file : manifest_of(folder).files) verify_contents(folder, file);
}

std::optional<std::string> load_text(const std::string& folder, const std::string& name) {
  for (const ManifestFile& file : manifest_of(folder).files) {
    if (file.name != name) continue;
    verify_contents(folder, file);
    return read_text_file(folder + "/" + name, kMaxText);
  }
  return std::nullopt;
}

CheckpointContents load_checkpoint(const std::string& folder, bool with_optimizer) {
  const Manifest manifest = manifest_of(folder);
  CheckpointContents contents;
  contents.step = manifest.step;
  contents.path = folder;
  const auto skipped = [&](const ManifestFile& file) {
    return !with_optimizer && file.name.starts_with(kOptimizerPrefix);
  };
  // Every file is verified before the first is used.
  for (const ManifestFile& file : manifest.files)
    skipped(file) ? verify_size(folder, file) : verify_contents(folder, file);
  bool model = false;
  for (const ManifestFile& file : manifest.files) {
    const std::string path = folder + "/" + file.name;
    if (skipped(file)) continue;
    model = model || file.name.starts_with(kModelPrefix);
    if (file.name.starts_with(kModelPrefix))
      append_tensors(path, contents.model);
    else if (file.name.starts_with(kOptimizerPrefix))
      append_tensors(path, contents.optimizer);
    else
      contents.texts[file.name] = read_text_file(path, kMaxText);
  }
  check<CheckpointError>(model, one_line(folder), ": holds no model shard");
  return contents;
}

std::optional<CheckpointContents> load_latest(const std::string& root, int64_t step,
                                              void (*warn)(const std::string&), int64_t at_most,
                                              bool with_optimizer) {
  restore_replaced(root);
  if (step >= 0) return load_step(root, step, with_optimizer);
  auto all = list_checkpoints(root);
  std::erase_if(all, [&](const auto& checkpoint) { return checkpoint.first > at_most; });
  if (all.empty()) return std::nullopt;
  std::string last;
  for (auto at = all.rbegin(); at != all.rend(); ++at) {
    try {
      return load_checkpoint(at->second, with_optimizer);
    } catch (const CheckpointError& error) {
      last = error.what();
      const std::string rest = std::next(at) == all.rend() ? "no older one is left"
                                                           : "using the one before: " + std::next(at)->second;
      const std::string message =
          one_line(text("checkpoint of step ", at->first, " cannot be used (", last, "); ", rest));
      warn ? warn(message) : static_cast<void>(std::fprintf(stderr, "%s\n", message.c_str()));
    }
  }
  throw CheckpointError(
      one_line(text(root, ": none of its ", all.size(), " checkpoints can be used; the oldest: ", last)));
}

}  // namespace longreach
