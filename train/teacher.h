// The model that a run learns from (job.task = "distill" with distillation.teacher), and what of the run's
// own model learns.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/distillation.h"
#include "models/transformer.h"
#include "train/run_config.h"

namespace longreach {

struct Teacher {
  std::string path;
  std::shared_ptr<Transformer> model;  // in evaluation mode, frozen
  // Layers of the run's own model that attend otherwise than the teacher's.
  std::vector<bool> converted;
};

DistillationWeights weights_of(const DistillationConfig& config);

// Null where the config names none. Throws ConfigError or CheckpointError naming distillation.teacher when it
// cannot be read or cannot teach this model.
std::shared_ptr<const Teacher> load_teacher(const RunConfig& config);

// The model of the teacher that the config names, read from its config alone; nothing where it names none.
// Throws as load_teacher does.
std::optional<ModelConfig> teacher_config(const RunConfig& config);

// Layers of the run's model that attend otherwise than the teacher's; empty where there is none.
std::vector<bool> converted_layers(const RunConfig& config, const std::optional<ModelConfig>& teacher);

// Leaves trainable what job.task = "distill" trains: gates, or what distillation.trainable says. converted:
// of the teacher, where there is one.
void freeze_for_distillation(Transformer& model, const RunConfig& config, const std::vector<bool>& converted);

// The number in model.layers.I.self_attn.*; -1 for any other parameter.
int64_t attention_layer_of(std::string_view parameter);

}  // namespace longreach
