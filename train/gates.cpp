#include "train/gates.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "checkpoints/checked_file.h"
#include "checkpoints/new_folder.h"
#include "checkpoints/safetensors.h"
#include "layers/attention/seer/gate.h"
#include "train/saved_model.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;

constexpr const char* kGateFile = "attn_gate_weights.safetensors";

NamedTensors gates_of(const Transformer& model) {
  NamedTensors gates;
  for (const auto& [name, tensor] : model_tensors(model))
    if (is_gate_parameter(name)) gates.emplace_back(name, tensor);
  return gates;
}

// The authors' names of our options.
nlohmann::ordered_json authors_config(const SeerConfig& config, const SeerGateForm& form) {
  nlohmann::ordered_json json;
  json["seerattn_gate_block_size"] = config.block_size;
  json["seerattn_gate_hidden_size"] = config.gate_hidden;
  json["seerattn_sparsity_method"] = config.selection == "density" ? "nz_ratio"
                                     : config.selection == "top_k" ? "token_budget"
                                                                   : config.selection;
  json["seerattn_threshold"] = config.threshold;
  if (form.decode) {
    json["seerattn_q_head_pooling_type"] = config.q_pooling == "auto" ? "Qproj" : config.q_pooling;
    json["seerattn_k_seq_pooling_type"] = config.k_pooling;
    json["seerattn_use_qk_norm"] = config.gate_qk_norm;
    json["seerattn_use_rope"] = config.gate_rope;
    json["seerattn_loss_slice_ratio"] = config.loss_slice_ratio;
    json["seerattn_token_budget"] =
        config.selection == "top_k" ? config.top_k * config.block_size : config.token_budget;
  } else {
    json["seerattn_gate_type"] =
        (config.q_pooling == "auto" ? "Qavg" : config.q_pooling) + "_" + config.k_pooling;
    json["seerattn_gate_force_double"] = config.layout == "double";
    json["seerattn_last_block_dense"] = config.last_block_dense;
    json["seerattn_nz_ratio"] = config.density;
  }
  return json;
}

}  // namespace

bool is_gate_parameter(std::string_view name) { return name.find(".attn_gate.") != std::string_view::npos; }

void freeze_all_but_gates(Transformer& model) {
  for (auto& item : model.named_parameters()) item.value().set_requires_grad(is_gate_parameter(item.key()));
}

void load_gates(Transformer& model, const std::string& path) {
  const at::NoGradGuard no_grad;
  const SafetensorsFile file(fs::is_directory(path) ? (fs::path(path) / kGateFile).string() : path);
  const NamedTensors own = gates_of(model);
  for (const auto& [name, tensor] : own) {
    check<CheckpointError>(file.contains(name), file.path(), ": gates of another model: it holds no ", name);
    check<CheckpointError>(file.entries().at(name).shape == tensor.sizes().vec(), file.path(),
                           ": gates of another model: ", name, " has shape ",
                           at::IntArrayRef(file.entries().at(name).shape), ", this config makes ",
                           tensor.sizes());
  }
  for (const std::string& name : file.names_in_file_order()) {
    const bool known =
        std::any_of(own.begin(), own.end(), [&](const auto& entry) { return entry.first == name; });
    check<CheckpointError>(known, file.path(), ": gates of another model: this config has no ", name);
  }
  for (const auto& [name, tensor] : own) tensor.copy_(file.tensor(name));
}

void write_gates(const Transformer& model, const std::string& base_model, const std::string& folder) {
  const ModelConfig& config = model.config();
  nlohmann::ordered_json json;
  json["base_model"] = base_model;
  for (const auto& layer : attention_per_layer(config.attention, config.num_hidden_layers))
    if (const auto* seer = std::get_if<SeerConfig>(&layer))
      json.update(authors_config(*seer, seer_gate_form(*seer, {.num_heads = config.num_attention_heads,
                                                               .num_kv_heads = config.num_key_value_heads,
                                                               .head_dim = config.head_dim})));
  const NamedTensors gates = gates_of(model);
  check<ConfigError>(!gates.empty(), base_model, ": the model has no gates (no layer of kind = \"seer\")");
  NewFolder output(folder);
  write_safetensors(output.path() + "/" + kGateFile, gates, {{"format", "pt"}});
  CheckedFile file(output.path() + "/config.json");
  file.write(json.dump(2) + "\n");
  file.finish();
  output.publish();
}

}  // namespace longreach
