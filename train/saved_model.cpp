#include "train/saved_model.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <sstream>

#include "core/verbose.h"
#include "layers/basic/initial_values.h"
#include "train/optimizer.h"
#include "train/warn.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream contents;
  check<DataError>(file.good() && contents << file.rdbuf(), path.string(), ": cannot be read");
  return contents.str();
}

// The folder that holds step-* folders, for a run folder or a checkpoint folder.
std::string checkpoint_root_of(const std::string& path) {
  if (!list_checkpoints(path).empty()) return path;
  const std::string config = path + "/config.toml";
  if (fs::exists(config)) return path + "/" + parse_run_config(read_file(config), config).checkpoint.folder;
  return path + "/checkpoint";
}

NamedTensors own_tensors(const Transformer& model) {
  NamedTensors tensors;
  for (const auto& item : model.named_parameters()) tensors.emplace_back(item.key(), item.value());
  for (const auto& item : model.named_buffers()) tensors.emplace_back(item.key(), item.value());
  return tensors;
}

// As load_model_tensors, but tensors of the model's dtype become its own: they are not there twice.
void take_model_tensors(const Transformer& model, const TensorSource& tensors, const std::string& origin) {
  const at::NoGradGuard no_grad;
  const std::vector<Run> all = whole_runs(own_tensors(model));
  expect_runs(tensors, all, origin);
  expect_no_others(tensors, all, origin);
  for (const auto& [name, own] : own_tensors(model)) {
    const at::Tensor given = tensors.tensor(name);
    if (own.scalar_type() == given.scalar_type())
      own.set_data(given);
    else
      own.copy_(given);
  }
}

}  // namespace

CheckpointReader open_checkpoint(const std::string& path) {
  check<CheckpointError>(fs::is_directory(path), path,
                         ": no such folder; expected a run, a checkpoint folder or a step folder");
  if (fs::exists(path + "/manifest.json")) {
    verify_checkpoint(path, false);
    return CheckpointReader(path, false);
  }
  auto newest = open_latest(checkpoint_root_of(path), -1, warn, std::numeric_limits<int64_t>::max(), false);
  check<CheckpointError>(newest.has_value(), path, ": holds no checkpoint");
  return std::move(*newest);
}

std::optional<RunConfig> saved_config(const std::string& path) {
  std::vector<std::pair<int64_t, std::string>> steps{{0, path}};
  if (!fs::exists(path + "/manifest.json")) steps = list_checkpoints(checkpoint_root_of(path));
  std::string damage;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    try {
      const auto written = load_text(step->second, "config.toml");
      if (!written) return std::nullopt;
      return parse_run_config(*written, step->second + "/config.toml");
    } catch (const CheckpointError& error) {
      damage = error.what();
    }
  }
  check<CheckpointError>(damage.empty(), damage);
  return std::nullopt;
}

void free_backends(ModelConfig& model) {
  for (AttentionEntry& entry : model.attention) take_any_run(entry.config);
}

SavedModel load_saved_model(const std::string& path) {
  const Stage stage("loading " + path);
  const CheckpointReader checkpoint = open_checkpoint(path);
  SavedModel saved;
  saved.path = checkpoint.path();
  saved.step = checkpoint.step();
  saved.texts = checkpoint.texts();
  const auto config = saved.texts.find("config.toml");
  check<CheckpointError>(config != saved.texts.end(), path, ": the checkpoint holds no config.toml");
  saved.config = parse_run_config(config->second, path + "/config.toml");
  const std::string kept_tokenizer = saved.path + "/tokenizer";
  if (fs::is_directory(kept_tokenizer)) saved.config.data.tokenizer = kept_tokenizer;
  saved.tokenizer = data::load_tokenizer(saved.config.data.tokenizer);
  free_backends(saved.config.model);
  saved.config.resolve_model(saved.tokenizer->vocab_size(), path + "/config.toml");
  const auto seed = static_cast<uint64_t>(saved.config.training.seed);
  {
    const WithoutInitialValues all_of_them_are_read(WithoutInitialValues::Form::untouched);
    saved.model = std::make_shared<Transformer>(saved.config.model, seed);
    add_adapters(*saved.model, saved.config.adapter, seed);
  }
  take_model_tensors(*saved.model, checkpoint.model(), path);
  saved.model->eval();
  return saved;
}

void expect_adapter(const CheckpointReader& checkpoint, AdapterConfig own, const std::string& origin,
                    bool may_be_new) {
  const std::vector<std::string>& names = checkpoint.model().names();
  const bool present = std::any_of(names.begin(), names.end(), is_adapter_parameter);
  if (!present && (may_be_new || !own.present())) return;
  const auto config = checkpoint.texts().find("config.toml");
  if (config == checkpoint.texts().end()) return;  // not of a run: names and shapes are compared alone
  AdapterConfig kept = parse_run_config(config->second, origin + "/config.toml").adapter;
  for (AdapterConfig* settings : {&kept, &own}) {
    settings->lora_dropout = 0.0;
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
  const fs::path path(spec);
  if (!fs::is_directory(path)) {
    texts["tokenizer/" + path.filename().string()] = read_file(path);
    return texts;
  }
  for (const char* name :
       {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"})
    if (fs::exists(path / name)) texts[std::string("tokenizer/") + name] = read_file(path / name);
  return texts;
}

}  // namespace longreach
