// Two configurations of a run, compared key by key.
#pragma once
#include <string>
#include <vector>

#include "train/run_config.h"

namespace longreach {

struct KeyChange {
  std::string key, before, after;  // values as TOML writes them
};

// Keys outside [model] whose values differ, in the order of the config. Where the run lies (job.dump_folder)
// and what goes wrong on purpose ([fault]) are no part of what it is.
std::vector<KeyChange> run_changes(RunConfig before, RunConfig after);

// Keys of [model], both resolved. Attention is compared layer by layer, however the tables are cut:
// "model.attention.window (layers 0-2)".
std::vector<KeyChange> model_changes(ModelConfig before, ModelConfig after);

// Layers of `after` whose attention differs from what `before` has there, by kind or by an option that is no
// choice of kernels; of models of unequal depth all.
std::vector<bool> changed_layers(const ModelConfig& before, const ModelConfig& after);

// "KEY: OLD -> NEW", short enough for a line.
std::string described(const KeyChange& change);
// "KEY = OLD there, NEW here; ..."
std::string contrasted(const std::vector<KeyChange>& changes);

}  // namespace longreach
