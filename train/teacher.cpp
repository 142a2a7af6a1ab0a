#include "train/teacher.h"

#include <charconv>

#include "core/naming.h"
#include "train/config_changes.h"
#include "train/finite.h"
#include "train/gates.h"
#include "train/saved_model.h"

namespace longreach {
namespace {

constexpr const char* kKey = "distillation.teacher: ";

// Calls f; errors begin with the key that names the teacher.
template <class F>
auto naming_teacher(const F& f) {
  return prefixing<ConfigError>(kKey, [&] { return prefixing<CheckpointError>(kKey, f); });
}

// What the run's options ask of every model that its batches go through.
void expect_abilities(const ModelConfig& teacher, const RunConfig& config) {
  if (config.training.varlen)
    expect_ability(teacher.attention, Ability::packed_documents, "training.varlen = true");
  if (config.training.mixed_precision_param == "bfloat16")
    expect_ability(teacher.attention, Ability::bfloat16, "training.mixed_precision_param = \"bfloat16\"");
  if (config.parallel.context_parallel_degree != 1)
    expect_ability(teacher.attention, Ability::context_parallel, "parallel.context_parallel_degree");
  check<ConfigError>(config.training.seq_len <= teacher.max_position_embeddings,
                     "training.seq_len = ", config.training.seq_len,
                     " is longer than its model.max_position_embeddings = ", teacher.max_position_embeddings);
}

bool trains(std::string_view parameter, const std::string& trainable, const std::vector<bool>& converted) {
  if (trainable == "all") return true;
  const int64_t layer = attention_layer_of(parameter);
  return layer >= 0 && (trainable == "attention" || converted.at(static_cast<size_t>(layer)));
}

}  // namespace

DistillationWeights weights_of(const DistillationConfig& config) {
  return {.attention = config.attention_weight,
          .hidden = config.hidden_weight,
          .logits = config.logits_weight,
          .temperature = config.temperature};
}

std::shared_ptr<const Teacher> load_teacher(const RunConfig& config) {
  const auto model = teacher_config(config);
  if (!model) return nullptr;
  return naming_teacher([&] {
    const SavedModel saved = load_saved_model(config.distillation.teacher);
    expect_finite<CheckpointError>(model_tensors(*saved.model), saved.path);
    for (auto& parameter : saved.model->parameters()) parameter.set_requires_grad(false);
    return std::make_shared<const Teacher>(
        Teacher{.path = saved.path, .model = saved.model, .converted = converted_layers(config, model)});
  });
}

std::optional<ModelConfig> teacher_config(const RunConfig& config) {
  if (config.distillation.teacher.empty()) return std::nullopt;
  return naming_teacher([&]() -> std::optional<ModelConfig> {
    const auto saved = saved_config(config.distillation.teacher);
    check<ConfigError>(saved.has_value(), config.distillation.teacher, ": holds no config");
    expect_teacher(config.model, saved->model, weights_of(config.distillation));
    expect_abilities(saved->model, config);
    return saved->model;
  });
}

std::vector<bool> converted_layers(const RunConfig& config, const std::optional<ModelConfig>& teacher) {
  return teacher ? changed_layers(*teacher, config.model) : std::vector<bool>();
}

void freeze_for_distillation(Transformer& model, const RunConfig& config,
                             const std::vector<bool>& converted) {
  if (config.distillation.teacher.empty()) return freeze_all_but_gates(model);
  for (auto& item : model.named_parameters())
    item.value().set_requires_grad(trains(item.key(), config.distillation.trainable, converted));
}

int64_t attention_layer_of(std::string_view parameter) {
  constexpr std::string_view kLayers = "model.layers.", kAttention = ".self_attn.";
  const size_t end = parameter.find(kAttention);
  if (!parameter.starts_with(kLayers) || end == std::string_view::npos) return -1;
  int64_t layer = -1;
  std::from_chars(parameter.data() + kLayers.size(), parameter.data() + end, layer);
  return layer;
}

}  // namespace longreach
