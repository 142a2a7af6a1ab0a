#include "train/gates.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "checkpoints/checked_file.h"
#include "checkpoints/formats/hugging_face_family.h"
#include "checkpoints/formats/torch_file.h"
#include "checkpoints/new_folder.h"
#include "core/naming.h"
#include "layers/attention/mechanisms.h"
#include "train/saved_model.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLargestConfig = 16 << 20;

// Of every kind that has one.
const std::vector<TaughtGate>& all_gates() {
  static const std::vector<TaughtGate> all = [] {
    std::vector<TaughtGate> gates;
    for (const AttentionConfig& config : all_attention_configs())
      if (const auto gate = gate_of(config)) gates.push_back(*gate);
    return gates;
  }();
  return all;
}

// The authors' file in `folder`, or one of that name that was converted to safetensors. A model's gates are
// of one kind.
std::string gate_file(const std::string& folder) {
  fs::path wanted;
  for (const TaughtGate& gate : all_gates()) {
    wanted = fs::path(folder) / gate.file;
    for (const fs::path& file : {wanted, fs::path(wanted).replace_extension(".safetensors")})
      if (fs::exists(file)) return file.string();
  }
  return wanted.string();
}

NamedTensors gates_of(const Transformer& model) {
  NamedTensors gates;
  for (const auto& [name, tensor] : model_tensors(model))
    if (is_gate_parameter(name)) gates.emplace_back(name, tensor);
  return gates;
}

// What config.json says of the model without its gates; nothing of one that transformers has no family for.
nlohmann::ordered_json model_keys(ModelConfig config) {
  for (AttentionEntry& entry : config.attention)
    if (gate_of(entry.config)) entry.config = DenseConfig{};
  try {
    nlohmann::ordered_json keys = hugging_face_keys(config);
    keys.erase("architectures");  // the class is the authors'
    return keys;
  } catch (const ConfigError&) {
    return nlohmann::ordered_json::object();
  }
}

}  // namespace

bool is_gate_parameter(std::string_view name) {
  const auto& gates = all_gates();
  return std::any_of(gates.begin(), gates.end(), [&](const TaughtGate& gate) {
    return name.find(text(".", gate.module, ".")) != std::string_view::npos;
  });
}

bool has_gates(const ModelConfig& config) {
  return std::any_of(config.attention.begin(), config.attention.end(),
                     [](const AttentionEntry& entry) { return gate_of(entry.config).has_value(); });
}

bool holds_gates(const std::string& path) {
  if (fs::is_directory(path)) return fs::exists(gate_file(path));
  return fs::is_regular_file(path) && (path.ends_with(".pth") || path.ends_with(".safetensors"));
}

void freeze_all_but_gates(Transformer& model) {
  for (auto& item : model.named_parameters()) item.value().set_requires_grad(is_gate_parameter(item.key()));
}

AttentionConfig gated_attention(const std::string& path, const std::set<std::string>& ignored) {
  const fs::path file = fs::is_directory(path) ? gate_file(path) : path;
  const std::string config = (file.parent_path() / "config.json").string();
  check<ConfigError>(fs::exists(config), one_line(path),
                     ": no config.json beside the gates, which says what they are");
  return naming<ConfigError>(one_line(file.parent_path().string()), [&] {
    auto options = nlohmann::ordered_json::parse(read_text_file(config, kLargestConfig), nullptr, false);
    for (const std::string& key : ignored)
      if (options.is_object()) options.erase(key);
    return attention_of_gates(fs::path(file).replace_extension(".pth").filename().string(), options.dump());
  });
}

void load_gates(Transformer& model, const std::string& path) {
  const at::NoGradGuard no_grad;
  const std::string where = fs::is_directory(path) ? gate_file(path) : path;
  const std::unique_ptr<TensorSource> file = open_tensor_file(where);
  const NamedTensors own = gates_of(model);
  for (const auto& [name, tensor] : own) {
    check<CheckpointError>(file->contains(name), where, ": gates of another model: it holds no ", name);
    check<CheckpointError>(file->shape(name) == tensor.sizes().vec(), where,
                           ": gates of another model: ", name, " has shape ",
                           at::IntArrayRef(file->shape(name)), ", this config makes ", tensor.sizes());
  }
  for (const std::string& name : file->names()) {
    const bool known =
        std::any_of(own.begin(), own.end(), [&](const auto& entry) { return entry.first == name; });
    check<CheckpointError>(known, where, ": gates of another model: this config has no ",
                           one_line(name, 200));
  }
  for (const auto& [name, tensor] : own) tensor.copy_(file->tensor(name));
}

std::string write_gates(const Transformer& model, const std::string& base_model, const std::string& folder) {
  const ModelConfig& config = model.config();
  const LayerSite site{.num_heads = config.num_attention_heads,
                       .num_kv_heads = config.num_key_value_heads,
                       .head_dim = config.head_dim};
  nlohmann::ordered_json json = model_keys(config);
  json["base_model"] = base_model;
  std::string name;
  for (const auto& layer : attention_per_layer(config.attention, config.num_hidden_layers)) {
    const auto gate = gate_of(layer);
    if (!gate) continue;
    const std::string file(gate->file);
    check<ConfigError>(name.empty() || name == file, base_model,
                       ": the model has gates of two kinds, whose authors keep them in ", name, " and ", file,
                       "; they cannot be written to one folder");
    name = file;
    json.update(nlohmann::ordered_json::parse(gate_config(layer, site)));
  }
  check<ConfigError>(!name.empty(), base_model, ": the model has no gates (no layer of ", kinds_with_gates(),
                     ")");
  NewFolder output(folder);
  write_torch_file(text(output.path(), "/", name), gates_of(model));
  CheckedFile file(output.path() + "/config.json");
  file.write(json.dump(2) + "\n");
  file.finish();
  output.publish();
  return text(folder, "/", name);
}

void expect_gates(const std::string& folder) { open_tensor_file(gate_file(folder)); }

}  // namespace longreach
