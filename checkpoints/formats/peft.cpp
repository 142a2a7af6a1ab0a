#include "checkpoints/formats/peft.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "checkpoints/checked_file.h"
#include "checkpoints/formats/torch_file.h"
#include "checkpoints/new_folder.h"
#include "checkpoints/safetensors.h"
#include "core/error.h"

namespace longreach {
namespace {

constexpr const char *kPeftPrefix = "base_model.model.", *kEmbedding = "model.embed_tokens.weight";

std::string module_of(const std::string& parameter) { return parameter.substr(0, parameter.rfind('.')); }
std::string last_part(const std::string& name) { return name.substr(name.rfind('.') + 1); }

// The modules that train whole. PEFT saves modules, so each must be saved with all that is in it.
std::vector<std::string> saved_modules(const Transformer& model, const AdapterConfig& config) {
  std::set<std::string> whole;
  for (const auto& item : model.named_parameters())
    if (is_saved_parameter(config, item.key())) whole.insert(module_of(item.key()));
  for (const auto& item : model.named_parameters())
    for (const std::string& module : whole)
      check<ConfigError>(!item.key().starts_with(module + ".") || is_saved_parameter(config, item.key()),
                         "adapter.modules_to_save: takes a part of ", module, " without ", item.key(),
                         "; PEFT saves whole modules");
  return {whole.begin(), whole.end()};
}

// PEFT takes every module whose name ends with one of these: last parts of names where they say neither more
// nor less than `saved`, else whole names.
std::vector<std::string> peft_names(const Transformer& model, const std::vector<std::string>& saved) {
  std::set<std::string> ends;
  for (const std::string& module : saved) ends.insert(last_part(module));
  size_t taken = 0;
  for (const auto& item : model.named_modules("", false))
    taken +=
        std::any_of(ends.begin(), ends.end(), [&](const auto& end) { return item.key().ends_with(end); });
  if (taken != saved.size()) return saved;
  return {ends.begin(), ends.end()};
}

nlohmann::ordered_json peft_config(const AdapterConfig& config, const std::string& base,
                                   const std::vector<std::string>& modules_to_save) {
  nlohmann::ordered_json json;
  json["peft_type"] = "LORA";
  json["task_type"] = "CAUSAL_LM";
  json["base_model_name_or_path"] = base.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(base);
  json["inference_mode"] = true;
  json["r"] = config.r;
  json["lora_alpha"] = config.lora_alpha;
  json["lora_dropout"] = config.lora_dropout;
  json["target_modules"] = config.target_modules;
  json["modules_to_save"] =
      modules_to_save.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(modules_to_save);
  json["bias"] = "none";
  json["fan_in_fan_out"] = false;
  json["use_rslora"] = false;
  json["use_dora"] = false;
  return json;
}

NamedTensors trainable_params(const NamedTensors& tensors, const AdapterConfig& config) {
  const auto is_part = [](const std::string& name) {
    return std::any_of(kTrainableParts.begin(), kTrainableParts.end(),
                       [&](std::string_view part) { return name.find(part) != std::string::npos; });
  };
  NamedTensors trainable;
  for (const auto& [name, tensor] : tensors)
    if (is_saved_parameter(config, name) && is_part(name)) trainable.emplace_back(name, tensor.contiguous());
  return trainable;
}

}  // namespace

void write_peft(const Transformer& model, const NamedTensors& tensors, const AdapterConfig& config,
                const std::string& base, const std::string& folder) {
  config.expect_present(folder);
  NamedTensors written;
  for (const auto& [name, tensor] : tensors)
    if (is_adapter_parameter(name) || is_saved_parameter(config, name))
      written.emplace_back(kPeftPrefix + name, tensor);
  std::vector<std::string> modules = peft_names(model, saved_modules(model, config));
  // PEFT puts the saved embedding in the place of the model's, and leaves an output layer tied to the old
  // one.
  if (model.config().tie_word_embeddings && is_saved_parameter(config, kEmbedding)) {
    written.emplace_back(text(kPeftPrefix, "lm_head.weight"), model.named_parameters()[kEmbedding].detach());
    modules.emplace_back("lm_head");
  }
  NewFolder output(folder);
  write_safetensors(output.path() + "/adapter_model.safetensors", written, {{"format", "pt"}});
  if (const NamedTensors trainable = trainable_params(tensors, config); !trainable.empty())
    write_torch_file(output.path() + "/" + kTrainableParams, trainable);
  CheckedFile file(output.path() + "/adapter_config.json");
  file.write(peft_config(config, base, modules).dump(2) + "\n");
  file.finish();
  output.publish();
}

}  // namespace longreach
