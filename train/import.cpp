#include "train/import.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "checkpoints/checkpoint.h"
#include "checkpoints/formats/foreign_model.h"
#include "checkpoints/formats/peft_reader.h"
#include "checkpoints/new_folder.h"
#include "core/naming.h"
#include "train/finite.h"
#include "train/gates.h"
#include "train/model_origin.h"
#include "train/probe_logits.h"
#include "train/saved_model.h"

namespace longreach {
namespace {

CheckpointContents contents_of(const SavedModel& model) {
  CheckpointContents contents{.step = 0, .model = model_tensors(*model.model), .texts = model.texts};
  RunConfig config = model.config;
  contents.texts["config.toml"] = to_toml(fields_of(config));
  if (model.tokenizer)
    contents.texts["state.json"] = nlohmann::json{{"tokenizer", model.tokenizer->fingerprint()}}.dump();
  return contents;
}

bool is_adapter(const std::string& source) {
  return std::filesystem::exists(std::filesystem::path(source) / "adapter_config.json");
}

void expect_no_adapter(const SavedModel& model) {
  check<ConfigError>(!model.config.adapter.present(), one_line(model.path),
                     ": has adapters of its own; `longreach export --format merged` makes a model without");
}

SavedModel adapted_model(const std::string& source, const ImportOptions& options) {
  check<UserError>(!options.base.empty(), one_line(source),
                   ": holds adapters; --base says which model they are for");
  SavedModel model = load_saved_model(open_origin(options.base, options.ignored));
  expect_no_adapter(model);
  const PeftAdapter adapter = read_peft(source, model.config.model, options.ignored);
  apply_peft(*model.model, adapter);
  model.config.adapter = adapter.config;
  return model;
}

bool has_gates(const ModelConfig& config) {
  return std::any_of(config.attention.begin(), config.attention.end(),
                     [](const AttentionEntry& entry) { return gate_of(entry.config).has_value(); });
}

// Every layer of a dense model with the gates' attention, which has the dense layers' parameters and its own.
void add_gates(SavedModel& model, const ModelOrigin& origin, const std::string& source,
               const std::set<std::string>& ignored) {
  expect_no_adapter(model);
  const AttentionConfig gated = gated_attention(source, ignored);
  ModelConfig& config = model.config.model;
  for (const AttentionConfig& layer : attention_per_layer(config.attention, config.num_hidden_layers))
    check<ConfigError>(kind_of(layer) == DenseConfig::kind, one_line(origin.path),
                       ": has a layer of kind = \"", kind_of(layer), "\"; the gates of ", one_line(source),
                       " are for dense attention, or for layers of ", kinds_with_gates());
  config.attention = {{"all", gated}};
  naming<ConfigError>(one_line(source), [&] { config.resolve(0); });
  model.model = std::make_shared<Transformer>(config, 0);
  load_model_tensors(*model.model, *origin.tensors, origin.path, is_gate_parameter);
  model.model->eval();
}

// Taught gates in their authors' file: they replace those of the base, or come to its dense layers.
SavedModel gated_model(const std::string& source, const ImportOptions& options) {
  check<UserError>(!options.base.empty(), one_line(source),
                   ": holds gates; --base says which model they are for");
  const ModelOrigin origin = open_origin(options.base, options.ignored);
  SavedModel model = load_saved_model(origin);
  if (!has_gates(model.config.model)) add_gates(model, origin, source, options.ignored);
  load_gates(*model.model, source);
  return model;
}

SavedModel source_model(const std::string& source, const ImportOptions& options) {
  if (is_adapter(source)) return adapted_model(source, options);
  if (!is_foreign_model(source) && holds_gates(source)) return gated_model(source, options);
  check<UserError>(options.base.empty(), "--base: ", one_line(source), " holds no adapters and no gates");
  check<CheckpointError>(is_foreign_model(source), one_line(source),
                         ": is no model of another program; expected a Hugging Face folder (config.json and "
                         "model.safetensors), a GGUF file, or adapters of PEFT or taught gates with --base");
  return load_saved_model(open_origin(source, options.ignored));
}

// Reads and writes the same bits, so that logits have them too.
constexpr double kSameBits = 0.0;

}  // namespace

Imported import_model(const std::string& source, const std::string& folder, const ImportOptions& options) {
  const NewFolder output(folder);
  Imported imported;
  at::Tensor logits;
  {
    const SavedModel model = source_model(source, options);
    const CheckpointContents contents = contents_of(model);
    if (!options.allow_nonfinite)
      expect_finite<CheckpointError>(contents.model, one_line(source) + " (--allow-nonfinite takes it)");
    imported.tensors = static_cast<int64_t>(contents.model.size());
    for (const auto& parameter : model.model->parameters()) imported.parameters += parameter.numel();
    logits = probe_logits(*model.model);
    save_checkpoint(output.path(), contents);
  }
  const SavedModel written = load_saved_model(output.path());
  const bool comparable = !options.allow_nonfinite || logits.isfinite().all().item<bool>();
  if (comparable)
    imported.difference = expect_same_logits(logits, probe_logits(*written.model), kSameBits, folder);
  output.publish();
  imported.path = folder + "/step-00000000";
  return imported;
}

}  // namespace longreach
