#include "checkpoints/formats/peft_reader.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "checkpoints/formats/hugging_face_json.h"
#include "checkpoints/formats/peft.h"
#include "checkpoints/formats/torch_file.h"
#include "core/error.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::string_view kPrefix = "base_model.model.", kA = ".lora_A.weight", kB = ".lora_B.weight";
constexpr const char *kOutput = "lm_head.weight", *kEmbedding = "model.embed_tokens.weight";

using Reader = HuggingFaceReader;

template <class T>
T value_or(const Reader& settings, const char* key, T value) {
  settings.read(key, value);
  return value;
}

int64_t integer_or(const Reader& settings, const char* key, int64_t value, int64_t low, int64_t high) {
  settings.read(key, value, low, high);
  return value;
}

// lora_alpha such that lora_alpha / r is the scale.
int64_t alpha_of(const Reader& settings, int64_t r) {
  const double alpha = value_or(settings, "lora_alpha", 8.0),
               ours = value_or(settings, "use_rslora", false) ? alpha * std::sqrt(static_cast<double>(r))
                                                              : alpha;
  if (ours != std::floor(ours) || ours < 1 || ours > 0x1p40)
    settings.fail("lora_alpha",
                  text("which scales the adapters by ", ours, " / r; an integer is wanted there"));
  return static_cast<int64_t>(ours);
}

// Where the base's weights were changed when the adapters were made, adapters alone say little.
void expect_plain_start(const Reader& settings, const Json& json) {
  if (!settings.has("init_lora_weights")) return;
  const Json& start = json.at("init_lora_weights");
  if (!start.is_boolean() && start != "gaussian" && start != "orthogonal" && start != "eva")
    settings.fail("init_lora_weights",
                  "which changes the weights of the base; allowed: true, false, gaussian, orthogonal, eva");
}

// All linear maps: those that the adapter's tensors name.
std::vector<std::string> read_targets(const Reader& settings, const Json& json) {
  std::vector<std::string> targets;
  if (settings.has("target_modules") && json.at("target_modules").is_string()) {
    if (json.at("target_modules") != "all-linear")
      settings.fail("target_modules", "a regular expression; expected a list of names, or all-linear");
    return targets;
  }
  settings.read("target_modules", targets);
  for (const std::string& target : targets) {
    if (target.empty()) settings.fail("target_modules", "expected a list of names");
    if (target.find('.') != std::string::npos)
      settings.fail(
          "target_modules",
          text("with `", target, "`; here a target is the last part of a name, in every layer that has it"));
  }
  return targets;
}

// Without effect on what the adapters compute. By PEFT's convention an option that is off is null, false or
// empty.
std::set<std::string> without_effect(const Json& json) {
  std::set<std::string> keys{"auto_mapping", "ensure_weight_tying", "inference_mode",    "revision",
                             "peft_version", "megatron_core",       "qalora_group_size", "runtime_config"};
  for (const auto& [key, value] : json.items())
    if (value.is_null() || value == false || value == "" || (value.is_structured() && value.empty()))
      keys.insert(key);
  return keys;
}

AdapterConfig read_config(const std::string& path, const std::set<std::string>& ignored, std::string& base) {
  const Json json = hugging_face_json(path);
  const Reader settings(path, json);
  const auto expect = [&](const char* key, const std::string& otherwise, const std::string& allowed) {
    if (value_or(settings, key, otherwise) != allowed) settings.fail(key, "allowed: " + allowed);
  };
  expect("peft_type", "nothing", "LORA");
  expect("task_type", "CAUSAL_LM", "CAUSAL_LM");
  expect("bias", "none", "none");
  settings.read("base_model_name_or_path", base);
  AdapterConfig config;
  config.type = "lora";
  config.r = integer_or(settings, "r", 8, 1, int64_t{1} << 30);
  config.lora_alpha = alpha_of(settings, config.r);
  config.lora_dropout = value_or(settings, "lora_dropout", 0.0);
  if (config.lora_dropout > 0.99) settings.fail("lora_dropout", "expected a number from 0 to 0.99");
  config.target_modules = read_targets(settings, json);
  settings.read("modules_to_save", config.modules_to_save);
  expect_plain_start(settings, json);
  settings.expect_all_known(without_effect(json), ignored);
  return config;
}

// The files' tensors under our names.
class PeftTensors : public TensorSource {
 public:
  void add(const std::string& path, std::string_view prefix) {
    files_.push_back(open_tensor_file(path));
    for (const std::string& name : files_.back()->names()) {
      check<CheckpointError>(name.starts_with(prefix), one_line(path), ": `", one_line(name, 200),
                             "`: names of PEFT begin with ", prefix);
      const std::string ours = name.substr(prefix.size());
      if (tensors_.emplace(ours, Place{files_.back().get(), name, one_line(path)}).second)
        names_.push_back(ours);
      else
        expect_same(ours, *files_.back(), name, path);
    }
  }
  void leave_out(const std::string& name) {
    tensors_.erase(name);
    names_.erase(std::find(names_.begin(), names_.end(), name));
  }
  // "FILE: `NAME`"
  std::string place(const std::string& name) const {
    const Place& place = find(name);
    return one_line(text(place.path, ": `", place.name, "`"));
  }

  const std::vector<std::string>& names() const override { return names_; }
  bool contains(const std::string& name) const override { return tensors_.count(name) > 0; }
  const std::vector<int64_t>& shape(const std::string& name) const override {
    return find(name).file->shape(find(name).name);
  }
  at::Tensor tensor(const std::string& name) const override {
    return find(name).file->tensor(find(name).name);
  }
  at::Tensor run(const std::string& name, int64_t begin, int64_t elements) const override {
    return find(name).file->run(find(name).name, begin, elements);
  }

 private:
  struct Place {
    const TensorSource* file;
    std::string name, path;  // as in the file
  };
  // Of what PEFT and LongLoRA keep in a file each.
  void expect_same(const std::string& ours, const TensorSource& file, const std::string& theirs,
                   const std::string& path) const {
    check<CheckpointError>(shape(ours) == file.shape(theirs) && tensor(ours).equal(file.tensor(theirs)),
                           one_line(path), ": `", one_line(theirs, 200), "`: is another one in ",
                           find(ours).path);
  }
  const Place& find(const std::string& name) const {
    const auto found = tensors_.find(name);
    check<CheckpointError>(found != tensors_.end(), "the adapter has no tensor `", one_line(name, 200), "`");
    return found->second;
  }

  std::vector<std::unique_ptr<TensorSource>> files_;
  std::vector<std::string> names_;
  std::map<std::string, Place> tensors_;
};

std::string adapter_file(const std::string& folder) {
  for (const char* name : {"/adapter_model.safetensors", "/adapter_model.bin"})
    if (fs::exists(folder + name)) return folder + name;
  throw CheckpointError(
      one_line(text(folder, ": holds neither adapter_model.safetensors nor adapter_model.bin")));
}

// The last part of the projection's name of q_proj.lora_A.weight; empty for other tensors.
std::string target_of(std::string_view name) {
  if (!name.ends_with(kA) && !name.ends_with(kB)) return {};
  name.remove_suffix(kA.size());
  return std::string(name.substr(name.rfind('.') + 1));
}

void expect_rank(const PeftTensors& tensors, int64_t r) {
  for (const std::string& name : tensors.names()) {
    if (target_of(name).empty()) continue;
    const std::vector<int64_t>& shape = tensors.shape(name);
    const bool fits = shape.size() == 2 && shape[name.ends_with(kA) ? 0 : 1] == r;
    check<CheckpointError>(fits, tensors.place(name), ": has shape ", at::IntArrayRef(shape),
                           ", which is no adapter of r = ", r);
  }
}

// A base that ties its output layer to the embedding: PEFT replaces the embedding alone, unless it was told
// to save both.
void expect_tied(PeftTensors& tensors, AdapterConfig& config) {
  if (tensors.contains(kOutput)) {
    const bool same = tensors.contains(kEmbedding) && tensors.shape(kEmbedding) == tensors.shape(kOutput) &&
                      tensors.tensor(kEmbedding).equal(tensors.tensor(kOutput));
    check<CheckpointError>(same, tensors.place(kOutput),
                           ": is not the saved embedding, to which the base model ties its output layer");
    tensors.leave_out(kOutput);
    std::erase(config.modules_to_save, "lm_head");
  } else if (tensors.contains(kEmbedding)) {
    throw CheckpointError(tensors.place(kEmbedding) +
                          ": is saved without the output layer that the base model ties to it, which PEFT "
                          "leaves as it was (ensure_weight_tying = true saves both)");
  }
}

// LongLoRA's: what has one of these in its name trains whole.
void add_trainable(PeftTensors& tensors, const std::string& path, AdapterConfig& config) {
  tensors.add(path, "");
  for (const std::string_view part : kTrainableParts) {
    const auto is_new = [&](const std::string& name) {
      return target_of(name).empty() && name.find(part) != std::string::npos &&
             !is_saved_parameter(config, name);
    };
    if (std::any_of(tensors.names().begin(), tensors.names().end(), is_new))
      config.modules_to_save.emplace_back(part);
  }
}

}  // namespace

PeftAdapter read_peft(const std::string& folder, const ModelConfig& base,
                      const std::set<std::string>& ignored) {
  PeftAdapter adapter;
  adapter.config = read_config(folder + "/adapter_config.json", ignored, adapter.base);
  const auto tensors = std::make_shared<PeftTensors>();
  tensors->add(adapter_file(folder), kPrefix);
  if (base.tie_word_embeddings) expect_tied(*tensors, adapter.config);
  if (const std::string more = folder + "/" + kTrainableParams; fs::exists(more))
    add_trainable(*tensors, more, adapter.config);
  if (adapter.config.target_modules.empty()) {
    std::set<std::string> targets;
    for (const std::string& name : tensors->names())
      if (const std::string target = target_of(name); !target.empty()) targets.insert(target);
    adapter.config.target_modules = {targets.begin(), targets.end()};
  }
  expect_rank(*tensors, adapter.config.r);
  adapter.tensors = tensors;
  return adapter;
}

void apply_peft(Transformer& model, const PeftAdapter& adapter) {
  const at::NoGradGuard no_grad;
  add_adapters(model, adapter.config, 0);
  const TensorSource& tensors = *adapter.tensors;
  std::map<std::string, at::Tensor> own;
  for (auto& item : model.named_parameters())
    if (is_adapter_parameter(item.key()) || is_saved_parameter(adapter.config, item.key()))
      own.emplace(item.key(), item.value());
  for (const auto& [name, parameter] : own) {
    check<CheckpointError>(tensors.contains(name), "the adapter has no tensor `", name,
                           "`, which its target_modules and modules_to_save ask for");
    check<CheckpointError>(at::IntArrayRef(tensors.shape(name)) == parameter.sizes(), "the adapter's `", name,
                           "` has shape ", at::IntArrayRef(tensors.shape(name)), ", the base model's ",
                           parameter.sizes());
  }
  for (const std::string& name : tensors.names())
    check<CheckpointError>(
        own.count(name) > 0, "the adapter's `", one_line(name, 200),
        "` belongs to nothing in the base model that its target_modules and modules_to_save name");
  for (auto& [name, parameter] : own) parameter.copy_(tensors.tensor(name));
}

}  // namespace longreach
