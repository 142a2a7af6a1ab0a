// The checkpoint of any number of ranks, of which each rank takes what it keeps.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "checkpoints/manifest.h"
#include "checkpoints/sharded_tensors.h"

namespace longreach {

// Checks that the manifest is that of the step the folder is named after, and size and checksum of files
// first, first + every, ...: several ranks share the work. Without the optimizer's files their sizes alone.
// Throws CheckpointError naming the file.
void verify_checkpoint(const std::string& folder, bool with_optimizer = true, int64_t first = 0,
                       int64_t every = 1);

// One text of a checkpoint ("config.toml"), verified; nothing when it has none of that name. Throws
// CheckpointError.
std::optional<std::string> load_text(const std::string& folder, const std::string& name);

class CheckpointReader {
 public:
  // Maps the tensors of a verified checkpoint, of either version, and reads the rest. Throws CheckpointError
  // naming file and tensor where the shards do not make whole tensors.
  explicit CheckpointReader(const std::string& folder, bool with_optimizer = true);

  int64_t step() const { return manifest_.step; }
  const std::string& path() const { return folder_; }
  const ShardedTensors& model() const { return model_; }          // parameters and buffers
  const ShardedTensors& optimizer() const { return optimizer_; }  // may be empty
  // File name -> contents, of all other files.
  const std::map<std::string, std::string>& texts() const { return texts_; }

 private:
  ShardedTensors tensors(std::string_view prefix) const;

  std::string folder_;
  Manifest manifest_;
  ShardedTensors model_, optimizer_;
  std::map<std::string, std::string> texts_;
};

}  // namespace longreach
