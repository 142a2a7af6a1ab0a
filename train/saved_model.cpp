#include "train/saved_model.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "checkpoints/checked_file.h"
#include "checkpoints/formats/foreign_model.h"
#include "core/verbose.h"
#include "layers/basic/initial_values.h"
#include "train/run_size.h"
#include "train/tokenizer_folder.h"
#include "train/warn.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLargestTokenizer = 256 << 20;  // bytes of a file

NamedTensors own_tensors(const Transformer& model) {
  NamedTensors tensors;
  for (const auto& item : model.named_parameters()) tensors.emplace_back(item.key(), item.value());
  for (const auto& item : model.named_buffers()) tensors.emplace_back(item.key(), item.value());
  return tensors;
}

// That the tensors are those of this config, by a model of shapes.
void expect_model(const ModelOrigin& origin, const RunConfig& config, const MayBeNew& may_be_new) {
  const std::vector<Run> all = whole_runs(own_tensors(*model_of_shapes(config)));
  expect_runs(*origin.tensors, all, origin.path, may_be_new);
  expect_no_others(*origin.tensors, all, origin.path);
}

// Those that there are. Tensors of the model's dtype become its own: they are not there twice.
void take_model_tensors(const Transformer& model, const TensorSource& tensors) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, own] : own_tensors(model)) {
    if (!tensors.contains(name)) continue;
    const at::Tensor given = tensors.tensor(name);
    if (own.scalar_type() == given.scalar_type())
      own.set_data(given);
    else
      own.copy_(given);
  }
}

}  // namespace

void free_backends(ModelConfig& model) {
  for (AttentionEntry& entry : model.attention) take_any_run(entry.config);
}

const data::Tokenizer& SavedModel::expect_tokenizer() const {
  check<CheckpointError>(tokenizer != nullptr, one_line(path),
                         ": the model came without a tokenizer, which this needs");
  return *tokenizer;
}

std::vector<int64_t> SavedModel::ends_of_text() const {
  constexpr const char* kFile = "tokenizer/generation_config.json";
  const auto found = texts.find(kFile);
  if (found == texts.end()) return {};
  const auto json = nlohmann::json::parse(found->second, nullptr, false);
  const bool given = json.is_object() && json.contains("eos_token_id") && !json["eos_token_id"].is_null();
  if (json.is_object() && !given) return {};
  const nlohmann::json ends = given && json["eos_token_id"].is_array() ? json["eos_token_id"]
                              : given ? nlohmann::json::array({json["eos_token_id"]})
                                      : nlohmann::json();
  const bool ids = ends.is_array() && std::all_of(ends.begin(), ends.end(), [&](const auto& id) {
                     return id.is_number_unsigned() &&
                            id.template get<uint64_t>() < static_cast<uint64_t>(config.model.vocab_size);
                   });
  check<ConfigError>(ids, one_line(path), "/", kFile,
                     ": `eos_token_id`: expected an id, or a list of ids, below ", config.model.vocab_size);
  return ends.get<std::vector<int64_t>>();
}

SavedModel load_saved_model(const std::string& path) { return load_saved_model(open_origin(path)); }

SavedModel load_saved_model(const ModelOrigin& origin, Implementation implementation,
                            const MayBeNew& may_be_new) {
  const Stage stage("loading " + origin.path);
  SavedModel saved{
      .path = origin.path, .step = origin.step, .config = origin.config(), .texts = origin.texts};
  saved.tokenizer = tokenizer_of(origin);
  const std::string kept_tokenizer = saved.path + "/tokenizer";
  if (fs::is_directory(kept_tokenizer)) saved.config.data.tokenizer = kept_tokenizer;
  free_backends(saved.config.model);
  saved.config.model.implementation = implementation;
  saved.config.resolve_model(saved.tokenizer ? saved.tokenizer->vocab_size() : 0,
                             origin.path + "/config.toml");
  expect_model(origin, saved.config, may_be_new);
  const auto seed = static_cast<uint64_t>(saved.config.training.seed);
  {
    const WithoutInitialValues all_of_them_are_read(WithoutInitialValues::Form::untouched);
    saved.model = std::make_shared<Transformer>(saved.config.model, seed);
    add_adapters(*saved.model, saved.config.adapter, seed);
  }
  take_model_tensors(*saved.model, *origin.tensors);
  saved.model->eval();
  return saved;
}

void expect_adapter(const TensorSource& tensors, const std::map<std::string, std::string>& texts,
                    AdapterConfig own, const std::string& origin, bool may_be_new) {
  const std::vector<std::string>& names = tensors.names();
  const bool present = std::any_of(names.begin(), names.end(), is_adapter_parameter);
  if (!present && (may_be_new || !own.present())) return;
  const auto config = texts.find("config.toml");
  if (config == texts.end()) return;  // not of a run: names and shapes are compared alone
  AdapterConfig kept = parse_saved_config(config->second, origin + "/config.toml").adapter;
  for (AdapterConfig* settings : {&kept, &own}) {
    settings->lora_dropout = 0.0;
    settings->base_dtype = {};
    std::sort(settings->target_modules.begin(), settings->target_modules.end());
    std::sort(settings->modules_to_save.begin(), settings->modules_to_save.end());
  }
  const auto there = help_of(fields_of(kept)), here = help_of(fields_of(own));
  for (size_t i = 0; i < here.size(); ++i)
    check<CheckpointError>(
        there[i].default_value == here[i].default_value, origin, ": was made with adapter.", here[i].key,
        " = ", there[i].default_value, ", this run has ", here[i].default_value,
        present ? "; `longreach export --format merged` makes a model without adapters of it" : "");
}

NamedTensors model_tensors(const Transformer& model) {
  NamedTensors tensors = own_tensors(model);
  for (auto& [name, tensor] : tensors) tensor = tensor.detach();
  return tensors;
}

std::vector<std::string> load_model_tensors(Transformer& model, const TensorSource& tensors,
                                            const std::string& origin,
                                            const std::function<bool(std::string_view)>& may_be_new) {
  const std::vector<Run> all = whole_runs(model_tensors(model));
  expect_no_others(tensors, all, origin);
  return read_runs(tensors, all, origin, may_be_new);
}

std::map<std::string, std::string> tokenizer_texts(const std::string& spec) {
  std::map<std::string, std::string> texts;
  if (spec == "bytes") return texts;
  const TokenizerFolder tokenizer(spec);
  const fs::path path(tokenizer.path());
  if (!fs::is_directory(path)) {
    texts["tokenizer/" + path.filename().string()] = read_text_file(path, kLargestTokenizer);
    return texts;
  }
  for (const std::string& name : tokenizer_file_names())
    if (fs::exists(path / name)) texts["tokenizer/" + name] = read_text_file(path / name, kLargestTokenizer);
  return texts;
}

}  // namespace longreach
