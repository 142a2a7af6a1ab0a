// Checkpoints of ours written anew: what `import` ends in, and `export` as native and merged.
#pragma once
#include <functional>
#include <string>

#include "train/saved_model.h"

namespace longreach {

struct NativeExport {
  double limit = 0;              // of the difference of the logits; 0: the same bits
  bool allow_nonfinite = false;  // nothing is compared where the logits are not finite
};

struct NativeCheckpoint {
  std::string path;       // the step folder
  double difference = 0;  // of the logits of 64 tokens, before and after, over the largest of them
};

// Writes the model that `open` gives to folder/step-NNNNNNNN: weights, config, tokenizer and its fingerprint,
// but no optimizer and no place in a run. `open` is called once; its model is gone before what was written is
// read back. A model whose config has no adapters is written without those that it holds. The folder appears
// whole or not at all. Throws CheckpointError when the folder exists and is not empty, or cannot be written;
// Error when the checkpoint computes something else than its source.
NativeCheckpoint write_native(const std::function<SavedModel()>& open, const std::string& folder,
                              const NativeExport& options = {});

// The model of a run, checkpoint folder, step folder or another program's model, its adapters beside its
// weights. Prints the largest difference. Throws also what load_saved_model throws, and CheckpointError that
// names a weight that is not finite.
void export_native(const std::string& checkpoint, const std::string& folder);

// The same with adapters in the weights they belong to, W + scale B A, and none in the config. Throws
// ConfigError when the model has no adapters.
void export_merged(const std::string& checkpoint, const std::string& folder);

}  // namespace longreach
