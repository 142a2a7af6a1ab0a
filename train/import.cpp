#include "train/import.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "checkpoints/checkpoint.h"
#include "checkpoints/formats/foreign_model.h"
#include "checkpoints/formats/peft_reader.h"
#include "checkpoints/new_folder.h"
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

SavedModel adapted_model(const std::string& source, const ImportOptions& options) {
  check<UserError>(!options.base.empty(), one_line(source),
                   ": holds adapters; --base says which model they are for");
  SavedModel model = load_saved_model(open_origin(options.base, options.ignored));
  check<ConfigError>(!model.config.adapter.present(), one_line(options.base),
                     ": has adapters of its own; `longreach export --format merged` makes a model without");
  const PeftAdapter adapter = read_peft(source, model.config.model, options.ignored);
  apply_peft(*model.model, adapter);
  model.config.adapter = adapter.config;
  return model;
}

// Taught gates in their authors' file: they replace those of the base.
SavedModel gated_model(const std::string& source, const ImportOptions& options) {
  check<UserError>(!options.base.empty(), one_line(source),
                   ": holds gates; --base says which model they are for");
  SavedModel model = load_saved_model(open_origin(options.base, options.ignored));
  const auto parameters = model.model->named_parameters();
  check<ConfigError>(std::any_of(parameters.begin(), parameters.end(),
                                 [](const auto& item) { return is_gate_parameter(item.key()); }),
                     one_line(options.base), ": has no gates (no layer of ", kinds_with_gates(),
                     "); a run with such layers that takes ", one_line(source),
                     " as distillation.gates makes them");
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
