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

// "KEY: OLD -> NEW", short enough for a line.
std::string described(const KeyChange& change);
// "KEY = OLD there, NEW here; ..."
std::string contrasted(const std::vector<KeyChange>& changes);

}  // namespace longreach
