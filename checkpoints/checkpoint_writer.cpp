#include "checkpoints/checkpoint_writer.h"

#include <cstdio>
#include <filesystem>
#include <functional>

#include "checkpoints/folders.h"
#include "core/error.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;

// Not the folders above: what has been removed or renamed meanwhile is not made again.
void make_folder(const std::string& path) {
  std::error_code error;
  fs::create_directory(path, error);
  if (error) throw CheckpointError(one_line(text(path, ": cannot be created: ", error.message())));
}

std::string shard_name(std::string_view prefix, int rank) {
  char digits[16];
  std::snprintf(digits, sizeof digits, "%05d", rank);
  return text(prefix, digits, ".safetensors");
}

ManifestFile write_file(const std::string& folder, const std::string& name, const WritePoint& point,
                        const std::function<void(CheckedFile&)>& write) {
  reach(point);
  CheckedFile file(folder + "/" + name);
  reach(point);
  write(file);
  reach(point);
  return {name, file.finish()};
}

}  // namespace

std::vector<ManifestFile> write_whole(const std::string& folder, const NamedTensors& model,
                                      const NamedTensors& optimizer, const WritePoint& point) {
  std::vector<ManifestFile> files;
  const auto add = [&](std::string_view prefix, const NamedTensors& tensors) {
    files.push_back(write_file(folder, shard_name(prefix, 0), point,
                               [&](CheckedFile& file) { write_safetensors(file, tensors); }));
  };
  add(kModelPrefix, model);
  if (!optimizer.empty()) add(kOptimizerPrefix, optimizer);
  return files;
}

std::vector<ManifestFile> write_shards(const std::string& folder, int rank,
                                       const std::vector<TensorRun>& model,
                                       const std::vector<TensorRun>& optimizer, const WritePoint& point) {
  std::vector<ManifestFile> files;
  const auto add = [&](std::string_view prefix, const std::vector<TensorRun>& runs) {
    files.push_back(write_file(folder, shard_name(prefix, rank), point,
                               [&](CheckedFile& file) { write_runs(file, runs); }));
  };
  add(kModelPrefix, model);
  add(kOptimizerPrefix, optimizer);
  reach(point);
  sync_folder(folder);
  return files;
}

CheckpointWriter::CheckpointWriter(const std::string& root, int64_t step, const WritePoint& point)
    : root_(root), step_(step), path_(step_folder(root, step) + ".tmp"), point_(point) {
  check<CheckpointError>(step >= 0, one_line(root), ": step ", step, ", allowed: at least 0");
  make_folder(root);
  reach(point_);
  clean_leftovers(root);
  reach(point_);
  make_folder(path_);
}

CheckpointWriter::~CheckpointWriter() {
  std::error_code ignored;
  if (!published_) fs::remove_all(path_, ignored);
}

void CheckpointWriter::add_files(int64_t version, const std::vector<ManifestFile>& files) {
  manifest_.version = version;
  manifest_.files.insert(manifest_.files.end(), files.begin(), files.end());
}

void CheckpointWriter::add_text(const std::string& name, const std::string& contents) {
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
  manifest_.files.push_back(
      write_file(path_, name, point_, [&](CheckedFile& file) { file.write(contents); }));
}

std::string CheckpointWriter::publish() {
  manifest_.step = step_;
  write_file(path_, kManifestName, point_, [&](CheckedFile& file) { file.write(manifest_text(manifest_)); });
  folders_.insert(path_);
  for (const std::string& folder : folders_) {
    reach(point_);
    sync_folder(folder);
  }
  publish_folder(root_, step_, point_);
  published_ = true;
  return step_folder(root_, step_);
}

}  // namespace longreach
