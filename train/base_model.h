// The model that a new run starts from (checkpoint.initial_load_path).
#pragma once
#include <optional>

#include "data/tokenizers/tokenizer.h"
#include "models/transformer.h"
#include "train/run_config.h"
#include "train/teacher.h"

namespace longreach {

// The config of the model that a run starts from, or, when the run has begun, of its own: keys of [model] and
// data.tokenizer that a config does not give come from it. Nothing without checkpoint.initial_load_path.
// Throws CheckpointError or ConfigError.
std::optional<RunConfig> inherited_config(const RunConfig& config);

// Loads the base's parameters. Adapters, and gates that are learnt or loaded, keep their initial values where
// the base has none. Throws CheckpointError, before anything is changed, when the base is another function of
// its tensors than `config` says (heads, norms, sizes); prints what was loaded and what the config applies
// otherwise (positions, kinds of attention); warns of another tokenizer.
//
// With a teacher, layers may attend otherwise than the base's. Those that attend as the teacher's take its
// attention. The others take what the base has under their names, key and value heads repeated where theirs
// are a multiple of the base's; what it has not keeps its initial values.
void load_base_model(Transformer& model, const RunConfig& config, const data::Tokenizer& tokenizer,
                     const Teacher* teacher = nullptr);

}  // namespace longreach
