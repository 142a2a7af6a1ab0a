#include "train/saved_model.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "core/verbose.h"
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

}  // namespace

CheckpointContents read_checkpoint(const std::string& path, bool with_optimizer) {
  check<CheckpointError>(fs::is_directory(path), path,
                         ": no such folder; expected a run, a checkpoint folder or a step folder");
  if (fs::exists(path + "/manifest.json")) return load_checkpoint(path, with_optimizer);
  auto newest = load_latest(checkpoint_root_of(path), -1, warn);
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
  for (AttentionEntry& entry : model.attention)
    if (auto* dense = std::get_if<DenseConfig>(&entry.config)) dense->backend = "auto";
}

SavedModel load_saved_model(const std::string& path) {
  const Stage stage("loading " + path);
  CheckpointContents contents = read_checkpoint(path, false);
  SavedModel saved;
  saved.path = contents.path;
  saved.step = contents.step;
  const auto config = contents.texts.find("config.toml");
  check<CheckpointError>(config != contents.texts.end(), path, ": the checkpoint holds no config.toml");
  saved.config = parse_run_config(config->second, path + "/config.toml");
  const std::string kept_tokenizer = contents.path + "/tokenizer";
  if (fs::is_directory(kept_tokenizer)) saved.config.data.tokenizer = kept_tokenizer;
  saved.tokenizer = data::load_tokenizer(saved.config.data.tokenizer);
  free_backends(saved.config.model);
  saved.config.resolve_model(saved.tokenizer->vocab_size(), path + "/config.toml");
  saved.model =
      std::make_shared<Transformer>(saved.config.model, static_cast<uint64_t>(saved.config.training.seed));
  add_adapters(*saved.model, saved.config.adapter, static_cast<uint64_t>(saved.config.training.seed));
  load_model_tensors(*saved.model, contents.model, path);
  saved.model->eval();
  return saved;
}

void expect_adapter(const CheckpointContents& contents, AdapterConfig own, const std::string& origin,
                    bool may_be_new) {
  const bool present = std::any_of(contents.model.begin(), contents.model.end(),
                                   [](const auto& tensor) { return is_adapter_parameter(tensor.first); });
  if (!present && (may_be_new || !own.present())) return;
  const auto config = contents.texts.find("config.toml");
  if (config == contents.texts.end()) return;  // not of a run: names and shapes are compared alone
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
  NamedTensors tensors;
  for (const auto& item : model.named_parameters()) tensors.emplace_back(item.key(), item.value().detach());
  for (const auto& item : model.named_buffers()) tensors.emplace_back(item.key(), item.value().detach());
  return tensors;
}

std::vector<std::string> load_model_tensors(Transformer& model, const NamedTensors& tensors,
                                            const std::string& origin,
                                            const std::function<bool(std::string_view)>& may_be_new) {
  std::map<std::string, at::Tensor> given(tensors.begin(), tensors.end());
  const NamedTensors own = model_tensors(model);
  std::set<std::string> names;
  std::vector<std::string> added;
  for (const auto& [name, tensor] : own) {
    names.insert(name);
    const auto found = given.find(name);
    if (found == given.end() && may_be_new && may_be_new(name)) {
      added.push_back(name);
      continue;
    }
    check<CheckpointError>(found != given.end(), origin, ": is of another model: it holds no ", name);
    check<CheckpointError>(found->second.sizes() == tensor.sizes(), origin, ": is of another model: ", name,
                           " has shape ", found->second.sizes(), ", this config makes ", tensor.sizes());
  }
  for (const auto& [name, tensor] : tensors)
    check<CheckpointError>(names.count(name) > 0, origin, ": is of another model: this config has no ", name);
  for (const auto& [name, tensor] : own)
    if (const auto found = given.find(name); found != given.end()) tensor.copy_(found->second);
  return added;
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
