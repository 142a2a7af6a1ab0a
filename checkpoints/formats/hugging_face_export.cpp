#include "checkpoints/formats/hugging_face_export.h"

#include <c10/core/ScalarType.h>

#include <cstdio>

#include "checkpoints/checked_file.h"
#include "checkpoints/formats/hugging_face_family.h"
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

bool has_family(const ModelConfig& config) {
  try {
    hugging_face_family(config);
    return true;
  } catch (const ConfigError&) {
    return false;
  }
}

void write_text(const std::string& path, const std::string& contents) {
  CheckedFile file(path);
  file.write(contents);
  file.finish();
}

// Which tensors share a file: as many as fit, in their order.
std::vector<NamedTensors> shards_of(const NamedTensors& tensors, int64_t element, int64_t limit) {
  std::vector<NamedTensors> shards(1);
  int64_t bytes = 0;
  for (const auto& item : tensors) {
    const int64_t own = item.second.numel() * element;
    if (bytes > 0 && bytes + own > limit) {
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
  const auto element = static_cast<int64_t>(c10::elementSize(options.dtype));
  std::vector<NamedTensors> shards = shards_of(tensors, element, options.shard_bytes);
  Json index{{"metadata", {{"total_size", 0}}}, {"weight_map", Json::object()}};
  int64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shard_name(i, shards.size());
    for (auto& [key, tensor] : shards[i]) {
      tensor = tensor.to(options.dtype);
      total += tensor.numel() * element;
      index["weight_map"][key] = name;
    }
    write_safetensors(folder + "/" + name, shards[i], {{"format", "pt"}});
    shards[i].clear();
  }
  index["metadata"]["total_size"] = total;
  if (shards.size() > 1) write_text(folder + "/model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace

void expect_hugging_face(const ModelConfig& config) {
  if (!has_family(config)) longreach_code(config);
}

void write_hugging_face(const ModelConfig& config, const NamedTensors& tensors,
                        const HuggingFaceExport& options, const std::string& folder) {
  const bool known = has_family(config);
  Json json = known ? hugging_face_keys(config) : longreach_config(config);
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
  write_weights(tensors, options, folder);
  for (const auto& [name, contents] : files) write_text(folder + "/" + name, contents);
}

}  // namespace longreach
