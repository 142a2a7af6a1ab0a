// Native checkpoints: a folder of safetensors shards and JSON, complete or absent, never half.
//
//   step-00000120/            written as step-00000120.tmp, fsynced, renamed
//     manifest.json           format version, step, files with sizes and XXH3-64 checksums
//     model-00000.safetensors, optimizer-00000.safetensors   one a rank, tensors with their global offsets
//     state.json              whatever the trainer wants back (step, RNG, data position)
//     config.toml, tokenizer/ what is needed to use the model without the run
#pragma once
#include <ATen/core/Tensor.h>

#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "checkpoints/write_point.h"

namespace longreach {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

struct CheckpointContents {
  int64_t step = 0;
  std::string path;        // the folder it was read from; not used when saving
  NamedTensors model;      // parameters and buffers
  NamedTensors optimizer;  // may be empty
  // File name -> contents: state.json, config.toml, tokenizer/tokenizer.json, ...
  std::map<std::string, std::string> texts;
};

// Writes root/step-NNNNNNNN atomically and returns its path; root is made, the folder above it must be there.
// An existing checkpoint of that step is replaced only once the new one is complete. Throws CheckpointError
// (full disk, read-only folder) and leaves everything else as it was.
std::string save_checkpoint(const std::string& root, const CheckpointContents& contents,
                            const WritePoint& point = {});

// Checks that the manifest is that of the step the folder is named after, and every file's size and checksum.
// Throws CheckpointError naming the file.
void verify_checkpoint(const std::string& folder);

// Verifies as above, then reads. Throws CheckpointError naming the file.
CheckpointContents load_checkpoint(const std::string& folder, bool with_optimizer = true);

// One text of a checkpoint ("config.toml"), verified; nothing when it has none of that name. Throws
// CheckpointError.
std::optional<std::string> load_text(const std::string& folder, const std::string& name);

// Complete checkpoints under root, oldest first.
std::vector<std::pair<int64_t, std::string>> list_checkpoints(const std::string& root);

// step -1: the newest that verifies; a damaged one is reported through `warn` and the one before is used.
// Another step: exactly that one. Nothing when root holds no checkpoint. Throws CheckpointError when there
// are some and none is good. at_most: later steps are not looked at.
std::optional<CheckpointContents> load_latest(const std::string& root, int64_t step,
                                              void (*warn)(const std::string&),
                                              int64_t at_most = std::numeric_limits<int64_t>::max(),
                                              bool with_optimizer = true);

}  // namespace longreach
