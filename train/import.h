// A model of another program made a checkpoint of ours: the verb `import`.
#pragma once
#include <cstdint>
#include <set>
#include <string>

namespace longreach {

struct ImportOptions {
  std::set<std::string> ignored;  // keys of the model's config that have no effect
  bool allow_nonfinite = false;   // weights that are NaN or infinite stay so
  std::string base;               // of adapters and gates: the model they are for, as open_origin takes it
};

struct Imported {
  std::string path;  // the checkpoint
  int64_t tensors = 0, parameters = 0;
  double difference = 0;  // of the logits of 64 tokens, read from the source and from the checkpoint
};

// Writes folder/step-00000000: weights in float32, config, tokenizer; of adapters (a folder of PEFT) the base
// with them beside its projections, of gates (load_gates) the base with them in place of its own. The folder
// appears whole or not at all.
// Needs memory for the model and its largest tensor. Throws ConfigError or CheckpointError naming file and
// field: `source` is no model, the folder exists, what open_foreign_model refuses, a weight that is not
// finite; Error when the checkpoint computes something else than its source.
Imported import_model(const std::string& source, const std::string& folder, const ImportOptions& options);

}  // namespace longreach
