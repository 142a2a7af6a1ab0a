// What a run that goes on is compared with: the config, the tokenizer and the data that its checkpoint
// stores.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checkpoints/checkpoint.h"
#include "data/loader.h"
#include "train/run_config.h"

namespace longreach {

// What the order of the data depends on, for state.json, as JSON: sizes and contents of the sources, not
// where they lie.
std::string data_identity(const RunConfig& config, const data::Corpus& corpus);

// What differs between two of them, a phrase each; the older form (one string, with paths) is read too.
std::vector<std::string> data_changes(const nlohmann::json& before, const nlohmann::json& now);

// state.json of a checkpoint. Throws CheckpointError when it is not there or not one of this program.
nlohmann::json run_state(const CheckpointReader& checkpoint);

// Throws CheckpointError naming both values when the checkpoint is of another tokenizer, another [model] or
// other adapters; warns of other data and of a learning rate that rises; prints a line for every other key
// that has changed.
void compare_with_checkpoint(const CheckpointReader& checkpoint, const RunConfig& own,
                             const data::Tokenizer& tokenizer, const std::string& data_identity);

}  // namespace longreach
