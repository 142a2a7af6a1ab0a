#include "train/base_model.h"

#include <algorithm>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "core/naming.h"
#include "train/config_changes.h"
#include "train/conversion.h"
#include "train/finite.h"
#include "train/gates.h"
#include "train/model_origin.h"
#include "train/saved_model.h"
#include "train/warn.h"

namespace longreach {
namespace {

constexpr const char* kKey = "checkpoint.initial_load_path: ";

// Calls f; errors of the base begin with the key that names it.
template <class F>
auto naming_key(const F& f) {
  return prefixing<ConfigError>(kKey, [&] { return prefixing<CheckpointError>(kKey, f); });
}

// Keys that the same tensors compute something else under, though their shapes may fit. How far positions
// reach, which tokens are seen and in what dtype can be changed on purpose.
bool defines_function(const std::string& key) {
  static const std::set<std::string> keys{"model.vocab_size",
                                          "model.hidden_size",
                                          "model.intermediate_size",
                                          "model.num_hidden_layers",
                                          "model.num_attention_heads",
                                          "model.num_key_value_heads",
                                          "model.head_dim",
                                          "model.rms_norm_eps",
                                          "model.tie_word_embeddings",
                                          "model.qk_norm",
                                          "model.attention_bias",
                                          "model.attention_output_bias",
                                          "model.mlp_bias",
                                          "model.residual",
                                          "model.mlp",
                                          "model.norm",
                                          "model.embedding_scale"};
  return keys.count(key) > 0 || key.starts_with("model.minimax.");
}

void compare_models(const ModelConfig& base, const ModelConfig& own, const std::string& path) {
  const auto changes = model_changes(base, own);
  std::vector<KeyChange> refused;
  std::copy_if(changes.begin(), changes.end(), std::back_inserter(refused),
               [](const KeyChange& change) { return defines_function(change.key); });
  check<CheckpointError>(refused.empty(),
                         one_line(text(kKey, path, ": is of another model: ", contrasted(refused))));
  for (const KeyChange& change : changes)
    std::cout << "changed    " << described(change) << " (of the base model)" << std::endl;
}

void compare_tokenizers(const ModelOrigin& origin, const RunConfig& base, const RunConfig& own,
                        const data::Tokenizer& tokenizer) {
  const auto written = origin.texts.find("state.json");
  if (written == origin.texts.end()) return;
  const auto state = nlohmann::json::parse(written->second, nullptr, false);
  if (!state.is_object()) return;
  const std::string before = state.value("tokenizer", std::string()), now = tokenizer.fingerprint();
  if (!before.empty() && before != now)
    warn(text(kKey, origin.path, " was trained with another tokenizer, ", one_line(before, 40), " (",
              one_line(base.data.tokenizer, 200), "); data.tokenizer is ", now, " (",
              one_line(own.data.tokenizer, 200), "): its tokens mean something else"));
}

void print_loaded(const ModelOrigin& origin) {
  const TensorSource& tensors = *origin.tensors;
  int64_t parameters = 0;
  for (const std::string& name : tensors.names()) parameters += c10::multiply_integers(tensors.shape(name));
  std::ostringstream millions;
  millions << std::fixed << std::setprecision(2) << static_cast<double>(parameters) / 1e6;
  std::cout << "loaded     " << origin.path << ", step " << origin.step << ": " << tensors.names().size()
            << " tensors, " << millions.str() << " million parameters" << std::endl;
}

void print_new(const std::vector<std::string>& added, const std::string& path, bool gates_are_loaded) {
  const auto adapters = std::count_if(added.begin(), added.end(), is_adapter_parameter);
  const auto gates = static_cast<int64_t>(added.size()) - adapters;
  if (gates > 0 && !gates_are_loaded)
    std::cout << "gates      new: " << path << " holds none; " << gates << " tensors start from random values"
              << std::endl;
  if (adapters > 0)
    std::cout << "adapters   new: " << path << " holds none; " << adapters
              << " tensors, which change nothing at first" << std::endl;
}

}  // namespace

std::optional<RunConfig> inherited_config(const RunConfig& config) {
  const std::string& path = config.checkpoint.initial_load_path;
  if (path.empty()) return std::nullopt;
  const bool begun = !list_checkpoints(config.checkpoint_root()).empty();
  auto base = begun ? saved_config(config.checkpoint_root()) : naming_key([&] { return saved_config(path); });
  if (base) free_backends(base->model);
  return base;
}

void load_base_model(Transformer& model, const RunConfig& config, const data::Tokenizer& tokenizer,
                     const Teacher* teacher) {
  const std::string& path = config.checkpoint.initial_load_path;
  const ModelOrigin origin = naming_key([&] { return open_origin(path); });
  Conversion conversion;
  if (origin.texts.count("config.toml") > 0) {
    const RunConfig base = naming_key([&] { return origin.config(); });
    compare_models(base.model, config.model, path);
    compare_tokenizers(origin, base, config, tokenizer);
    if (teacher != nullptr) conversion = conversion_of(config.model, base.model, *teacher);
  }
  expect_adapter(*origin.tensors, origin.texts, config.adapter, path, true);
  const bool new_gates = !teacher && (config.job.task == "distill" || !config.distillation.gates.empty());
  const auto tensors = teacher ? converted_tensors(origin.tensors, conversion, model) : origin.tensors;
  const auto added = load_model_tensors(model, *tensors, path, [&](std::string_view name) {
    return is_adapter_parameter(name) || (new_gates && is_gate_parameter(name)) ||
           conversion.may_be_new(name);
  });
  if (teacher != nullptr) take_attention(model, *teacher, conversion);
  expect_finite<CheckpointError>(model_tensors(model), kKey + path);
  print_loaded(origin);
  if (teacher == nullptr) return print_new(added, path, !config.distillation.gates.empty());
  print_conversion(conversion, added);
}

}  // namespace longreach
