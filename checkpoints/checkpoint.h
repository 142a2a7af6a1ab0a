// Native checkpoints: a folder of safetensors shards and JSON, complete or absent, never half.
//
//   step-00000120/            written as step-00000120.tmp, fsynced, renamed
//     manifest.json           format version, step, files with sizes and XXH3-64 checksums
//     model-00000.safetensors, optimizer-00000.safetensors   whole tensors (version 1), or of each rank that
//                             keeps a share runs of flattened ones, whose places are in the metadata (2)
//     state.json              whatever the trainer wants back (step, RNG, data position)
//     config.toml, tokenizer/ what is needed to use the model without the run
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "checkpoints/checkpoint_reader.h"
#include "checkpoints/checkpoint_writer.h"
#include "checkpoints/write_point.h"

namespace longreach {

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

// Verifies all files, then reads. Throws CheckpointError naming the file.
CheckpointContents load_checkpoint(const std::string& folder, bool with_optimizer = true);

// Complete checkpoints under root, oldest first.
std::vector<std::pair<int64_t, std::string>> list_checkpoints(const std::string& root);

// Processes that open one checkpoint together, each on its own; by default one.
struct CheckpointPeers {
  int64_t rank = 0, ranks = 1;
  // What `work` gives on each rank, in their order, however long it takes. Called by all.
  std::function<std::vector<std::string>(const std::function<std::string()>& work)> each =
      [](const auto& work) { return std::vector<std::string>{work()}; };
};

// step -1: the newest that verifies and whose shards fit each other; of damaged ones the first rank warns,
// and the one before is used. Another step: exactly that one. Nothing when root holds no checkpoint. Throws
// CheckpointError when there are some and none is good. at_most: later steps are not looked at. Each file is
// verified by one of the ranks, and all open the same checkpoint.
std::optional<CheckpointReader> open_latest(const std::string& root, int64_t step,
                                            void (*warn)(const std::string&),
                                            int64_t at_most = std::numeric_limits<int64_t>::max(),
                                            bool with_optimizer = true, const CheckpointPeers& peers = {});

// As above, and reads all of it.
std::optional<CheckpointContents> load_latest(const std::string& root, int64_t step,
                                              void (*warn)(const std::string&),
                                              int64_t at_most = std::numeric_limits<int64_t>::max(),
                                              bool with_optimizer = true);

}  // namespace longreach
