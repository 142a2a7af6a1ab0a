// A checkpoint being written, by one process or by several ranks; it vanishes unless it is published.
#pragma once
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "checkpoints/checked_file.h"
#include "checkpoints/manifest.h"
#include "checkpoints/sharded_tensors.h"
#include "checkpoints/write_point.h"

namespace longreach {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// All of a model and of the optimizer's state, if there is one, into files of the folder of a writer (format
// version 1). Throws CheckpointError.
std::vector<ManifestFile> write_whole(const std::string& folder, const NamedTensors& model,
                                      const NamedTensors& optimizer, const WritePoint& point = {});

// The part of one rank: its runs of parameters and buffers, and of the optimizer's state, into two files of
// the folder, flushed (version 2). Throws CheckpointError.
std::vector<ManifestFile> write_shards(const std::string& folder, int rank,
                                       const std::vector<TensorRun>& model,
                                       const std::vector<TensorRun>& optimizer, const WritePoint& point = {});

// Of one process, the first rank. Every method throws CheckpointError.
class CheckpointWriter {
 public:
  // Makes root/step-NNNNNNNN.tmp, and root, but not the folder above it; removes leftovers of earlier saves.
  // `point` must outlive it.
  CheckpointWriter(const std::string& root, int64_t step, const WritePoint& point);
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  const std::string& folder() const { return path_; }
  // What has been written into the folder, in that version of the format.
  void add_files(int64_t version, const std::vector<ManifestFile>& files);
  void add_text(const std::string& name, const std::string& contents);
  // Writes the manifest, flushes and renames. Returns the path.
  std::string publish();

 private:
  const std::string root_;
  const int64_t step_;
  const std::string path_;
  const WritePoint& point_;
  std::set<std::string> folders_;  // to be flushed
  Manifest manifest_;
  bool published_ = false;
};

}  // namespace longreach
