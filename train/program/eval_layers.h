// The part of `longreach eval` that tells what each converted layer costs.
#pragma once
#include <nlohmann/json.hpp>
#include <vector>

#include "train/evaluate_layers.h"
#include "train/saved_model.h"

namespace longreach {

// One line a layer, beside the teacher, then the order in which layers had better stay as the teacher has
// them.
void print_table(const std::vector<LayerResult>& results);

nlohmann::ordered_json to_json(const SavedModel& saved, const std::vector<LayerResult>& results);

}  // namespace longreach
