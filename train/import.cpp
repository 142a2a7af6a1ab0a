#include "train/import.h"

#include <algorithm>
#include <filesystem>

#include "checkpoints/formats/foreign_model.h"
#include "checkpoints/formats/peft_reader.h"
#include "core/naming.h"
#include "train/finite.h"
#include "train/gates.h"
#include "train/model_origin.h"
#include "train/native_export.h"
#include "train/saved_model.h"

namespace longreach {
namespace {

bool is_adapter(const std::string& source) {
  return std::filesystem::exists(std::filesystem::path(source) / "adapter_config.json");
}

void expect_no_adapter(const RunConfig& config, const std::string& base) {
  check<ConfigError>(!config.adapter.present(), one_line(base),
                     ": has adapters of its own; `longreach export --format merged` makes a model without");
}

SavedModel adapted_model(const std::string& source, const ImportOptions& options) {
  check<UserError>(!options.base.empty(), one_line(source),
                   ": holds adapters; --base says which model they are for");
  SavedModel model = load_saved_model(open_origin(options.base, options.ignored));
  expect_no_adapter(model.config, options.base);
  const PeftAdapter adapter = read_peft(source, model.config.model, options.ignored);
  apply_peft(*model.model, adapter);
  model.config.adapter = adapter.config;
  return model;
}

// A dense model with the gates' attention in every layer, which has the dense layers' parameters and its own;
// the latter without values yet.
SavedModel with_gates(ModelOrigin origin, const std::string& source, const ImportOptions& options) {
  RunConfig config = origin.config();
  expect_no_adapter(config, options.base);
  for (const AttentionConfig& layer :
       attention_per_layer(config.model.attention, config.model.num_hidden_layers))
    check<ConfigError>(kind_of(layer) == DenseConfig::kind, one_line(origin.path),
                       ": has a layer of kind = \"", kind_of(layer), "\"; the gates of ", one_line(source),
                       " are for dense attention, or for layers of ", kinds_with_gates());
  config.model.attention = {{"all", gated_attention(source, options.ignored)}};
  origin.texts["config.toml"] = to_toml(fields_of(config));
  return naming<ConfigError>(
      one_line(source), [&] { return load_saved_model(origin, Implementation::fused, is_gate_parameter); });
}

// Taught gates in their authors' file: they replace those of the base, or come to its dense layers.
SavedModel gated_model(const std::string& source, const ImportOptions& options) {
  check<UserError>(!options.base.empty(), one_line(source),
                   ": holds gates; --base says which model they are for");
  const ModelOrigin origin = open_origin(options.base, options.ignored);
  SavedModel model =
      has_gates(origin.config().model) ? load_saved_model(origin) : with_gates(origin, source, options);
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

}  // namespace

Imported import_model(const std::string& source, const std::string& folder, const ImportOptions& options) {
  Imported imported;
  const auto open = [&] {
    SavedModel model = source_model(source, options);
    model.step = 0;
    const NamedTensors tensors = model_tensors(*model.model);
    if (!options.allow_nonfinite)
      expect_finite<CheckpointError>(tensors, one_line(source) + " (--allow-nonfinite takes it)");
    imported.tensors = static_cast<int64_t>(tensors.size());
    for (const auto& parameter : model.model->parameters()) imported.parameters += parameter.numel();
    return model;
  };
  const NativeCheckpoint written = write_native(open, folder, {.allow_nonfinite = options.allow_nonfinite});
  imported.path = written.path;
  imported.difference = written.difference;
  return imported;
}

}  // namespace longreach
