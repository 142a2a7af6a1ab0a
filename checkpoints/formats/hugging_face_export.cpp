#include "checkpoints/formats/hugging_face_export.h"

#include <c10/core/ScalarType.h>

#include <cstdio>

#include "checkpoints/checked_file.h"
#include "checkpoints/formats/hugging_face_config.h"
#include "checkpoints/formats/hugging_face_names.h"
#include "checkpoints/formats/longreach_code.h"
#include "checkpoints/safetensors.h"
#include "core/error.h"

namespace longreach {
namespace {

using Json = nlohmann::ordered_json;

std::string dtype_name(at::ScalarType dtype) {
  return dtype == at::kBFloat16 ? "bfloat16" : dtype == at::kHalf ? "float16" : "float32";
}

Json id_or_null(const std::optional<int64_t>& id) { return id ? Json(*id) : Json(); }

// The family that a model is written as.
std::string family_of(const ModelConfig& config, const std::string& wanted) {
  if (wanted == kLongreachType) return wanted;
  if (wanted != kAnyFamily) return hugging_face_family(config, wanted);
  try {
    return hugging_face_family(config);
  } catch (const ConfigError&) {
    return kLongreachType;
  }
}

// What follows from the config stays exact: a slope rounded to bfloat16 is another decay.
at::ScalarType dtype_of(const std::string& name, at::ScalarType weights) {
  return follows_from_config(name) ? at::kFloat : weights;
}

int64_t bytes_of(const std::string& name, const at::Tensor& tensor, at::ScalarType weights) {
  return tensor.numel() * static_cast<int64_t>(c10::elementSize(dtype_of(name, weights)));
}

void write_text(const std::string& path, const std::string& contents) {
  CheckedFile file(path);
  file.write(contents);
  file.finish();
}

// Which tensors share a file: as many as fit, in their order.
std::vector<NamedTensors> shards_of(const NamedTensors& tensors, const HuggingFaceExport& options) {
  std::vector<NamedTensors> shards(1);
  int64_t bytes = 0;
  for (const auto& item : tensors) {
    const int64_t own = bytes_of(item.first, item.second, options.dtype);
    if (bytes > 0 && bytes + own > options.shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += own;
    shards.back().push_back(item);
  }
  return shards;
}

std::string shard_name(size_t shard, size_t shards) {
  if (shards == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard + 1, shards);
  return name;
}

void write_weights(const NamedTensors& tensors, const HuggingFaceExport& options, const std::string& folder) {
  std::vector<NamedTensors> shards = shards_of(tensors, options);
  Json index{{"metadata", {{"total_size", 0}}}, {"weight_map", Json::object()}};
  int64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shard_name(i, shards.size());
    for (auto& [key, tensor] : shards[i]) {
      total += bytes_of(key, tensor, options.dtype);
      tensor = tensor.to(dtype_of(key, options.dtype));
      index["weight_map"][key] = name;
    }
    write_safetensors(folder + "/" + name, shards[i], {{"format", "pt"}});
    shards[i].clear();
  }
  index["metadata"]["total_size"] = total;
  if (shards.size() > 1) write_text(folder + "/model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace

const std::vector<std::string>& hugging_face_targets() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all{kAnyFamily, kLongreachType};
    all.insert(all.end(), hugging_face_types().begin(), hugging_face_types().end());
    return all;
  }();
  return names;
}

void expect_hugging_face(const ModelConfig& config, const std::string& family) {
  if (family_of(config, family) == kLongreachType) longreach_code(config);
}

void write_hugging_face(const ModelConfig& config, const NamedTensors& tensors,
                        const HuggingFaceExport& options, const std::string& folder) {
  const std::string family = family_of(config, options.family);
  const bool known = family != kLongreachType;
  Json json = known ? hugging_face_keys(config, options.family) : longreach_config(config);
  json["bos_token_id"] = id_or_null(options.bos);
  json["eos_token_id"] = id_or_null(options.eos);
  json["torch_dtype"] = dtype_name(options.dtype);  // transformers 5 also reads it under its older name
  json["use_cache"] = true;
  std::map<std::string, std::string> files = options.files;
  files["config.json"] = json.dump(2) + "\n";
  if (!known) files[kLongreachCode] = longreach_code(config);
  const Json generation{{"_from_model_config", true},
                        {"bos_token_id", json["bos_token_id"]},
                        {"eos_token_id", json["eos_token_id"]}};
  files.emplace("generation_config.json", generation.dump(2) + "\n");
  write_weights(hugging_face_tensors(family, config, tensors), options, folder);
  for (const auto& [name, contents] : files) write_text(folder + "/" + name, contents);
}

}  // namespace longreach
