#include "checkpoints/formats/gguf/gguf_export.h"

#include <ATen/ops/tensor.h>

#include <cmath>
#include <filesystem>

#include "checkpoints/checked_file.h"
#include "checkpoints/formats/gguf/ggml_type.h"
#include "checkpoints/formats/gguf/gguf_key_writer.h"
#include "checkpoints/formats/gguf/gguf_layout.h"
#include "checkpoints/formats/gguf/gguf_rope.h"
#include "checkpoints/formats/gguf/gguf_tokenizer_keys.h"
#include "core/error.h"
#include "core/temporary_folder.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;

constexpr size_t kAlignment = 32;

// A tensor as it will lie in the file.
struct Planned {
  GgufPlace place;
  at::Tensor tensor;  // ours
  const GgmlType* type;
  uint64_t bytes;
};

const GgmlType& matrix_type(const std::string& name) {
  for (const GgmlType* type : {&ggml_f32(), &ggml_f16(), &ggml_q8_0()})
    if (name == type->name) return *type;
  throw ConfigError(text("type of a GGUF file: found `", one_line(name, 50), "`, expected F32, F16 or Q8_0"));
}

const GgmlType& type_of(const std::vector<int64_t>& shape, const GgmlType& wanted) {
  if (shape.size() < 2) return ggml_f32();
  return shape.back() % wanted.block == 0 ? wanted : ggml_f16();
}

void plan(const GgufPlace& place, const at::Tensor& tensor, const GgmlType& wanted,
          std::vector<Planned>& all) {
  check<CheckpointError>(tensor.sizes() == place.shape, "`", place.ours, "`: has the shape ", tensor.sizes(),
                         ", the sizes give ", at::IntArrayRef(place.shape));
  const GgmlType& type = type_of(place.shape, wanted);
  all.push_back({place, tensor, &type, static_cast<uint64_t>(tensor.numel() / type.block * type.bytes)});
}

std::vector<Planned> plan_all(const ModelConfig& config, const std::string& architecture,
                              const NamedTensors& tensors, const GgmlType& wanted) {
  std::map<std::string, at::Tensor> open(tensors.begin(), tensors.end());
  std::vector<Planned> all;
  for (const GgufPlace& place : gguf_layout(config, architecture)) {
    const auto found = open.find(place.ours);
    check<CheckpointError>(found != open.end(), "`", place.ours, "`: is missing");
    plan(place, found->second, wanted, all);
    open.erase(found);
  }
  check<CheckpointError>(open.empty(), "`", open.empty() ? "" : one_line(open.begin()->first, 200),
                         "`: GGUF has no place for this tensor");
  if (config.rope.rope_type == "llama3") {
    const auto divisors = rope_divisors(config.rope, config.head_dim, config.max_position_embeddings);
    plan({"", "rope_freqs.weight", {config.head_dim / 2}, 0}, at::tensor(divisors), wanted, all);
  }
  return all;
}

void add_rope(const ModelConfig& config, const std::string& prefix, GgufKeyWriter& keys) {
  const RopeConfig& rope = config.rope;
  keys.add_integer(prefix + "rope.dimension_count", static_cast<uint32_t>(config.head_dim));
  keys.add_real(prefix + "rope.freq_base", rope.theta);
  if (rope.rope_type != "linear" && rope.rope_type != "yarn") return;
  keys.add_text(prefix + "rope.scaling.type", rope.rope_type);
  keys.add_real(prefix + "rope.scaling.factor", rope.factor);
  if (rope.rope_type == "linear") return;
  const int64_t original = rope.original_max_position_embeddings;
  keys.add_integer(prefix + "rope.scaling.original_context_length",
                   static_cast<uint32_t>(original > 0 ? original : config.max_position_embeddings));
  if (rope.attention_factor > 0)
    keys.add_real(prefix + "rope.scaling.attn_factor",
                  rope.attention_factor / (0.1 * std::log(rope.factor) + 1.0));
  const RopeConfig usual;
  if (rope.beta_fast != usual.beta_fast)
    keys.add_real(prefix + "rope.scaling.yarn_beta_fast", rope.beta_fast);
  if (rope.beta_slow != usual.beta_slow)
    keys.add_real(prefix + "rope.scaling.yarn_beta_slow", rope.beta_slow);
}

GgufKeyWriter keys_of(const ModelConfig& config, const std::string& architecture, const GgufOptions& options,
                      const std::map<std::string, std::string>& tokenizer) {
  GgufKeyWriter keys;
  keys.add_text("general.architecture", architecture);
  keys.add_text("general.type", "model");
  if (!options.name.empty()) keys.add_text("general.name", options.name);
  keys.add_integer("general.alignment", kAlignment);
  // What most tensors are, in the numbers of the format.
  keys.add_integer("general.file_type", options.type == "F32" ? 0 : options.type == "F16" ? 1 : 7);
  if (options.type == "Q8_0") keys.add_integer("general.quantization_version", 2);
  const std::string prefix = architecture + ".";
  const auto add = [&](const char* key, int64_t value) {
    keys.add_integer(prefix + key, static_cast<uint32_t>(value));
  };
  add("vocab_size", config.vocab_size);
  add("context_length", config.max_position_embeddings);
  add("embedding_length", config.hidden_size);
  add("block_count", config.num_hidden_layers);
  add("feed_forward_length", config.intermediate_size);
  add("attention.head_count", config.num_attention_heads);
  add("attention.head_count_kv", config.num_key_value_heads);
  add("attention.key_length", config.head_dim);
  add("attention.value_length", config.head_dim);
  keys.add_real(prefix + "attention.layer_norm_rms_epsilon", config.rms_norm_eps);
  add_rope(config, prefix, keys);
  add_tokenizer_keys(tokenizer, config.vocab_size, keys);
  return keys;
}

uint64_t aligned(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Everything before the data, padded.
std::string header_of(const GgufKeyWriter& keys, const std::vector<Planned>& all) {
  std::string header = "GGUF";
  append_number<uint32_t>(header, 3);
  append_number<uint64_t>(header, all.size());
  append_number(header, keys.count());
  header += keys.bytes();
  uint64_t offset = 0;
  for (const Planned& one : all) {
    append_text(header, one.place.theirs);
    append_number(header, static_cast<uint32_t>(one.place.shape.size()));
    for (auto size = one.place.shape.rbegin(); size != one.place.shape.rend(); ++size)
      append_number(header, static_cast<uint64_t>(*size));
    append_number(header, one.type->id);
    append_number(header, offset);
    offset = aligned(offset + one.bytes);
  }
  header.resize(aligned(header.size()));
  return header;
}

void write_tensor(CheckedFile& file, const Planned& one) {
  at::Tensor values = one.tensor.detach().cpu().to(at::kFloat);
  if (one.place.pair_heads > 0) values = halves_to_pairs(values, one.place.pair_heads);
  values = values.contiguous();
  const float* from = values.const_data_ptr<float>();
  const auto expect_finite = [&](const float* numbers) {
    for (int64_t i = 0; i < values.numel(); ++i)
      check<CheckpointError>(std::isfinite(numbers[i]), "`", one.place.ours, "`: holds a value that ",
                             one.type->name, " does not");
  };
  const bool rounded = one.type != &ggml_f32();
  if (rounded) expect_finite(from);
  std::string bytes = ggml_encode(*one.type, from, values.numel());
  if (rounded) {
    std::vector<float> back(static_cast<size_t>(values.numel()));
    one.type->dequantize(reinterpret_cast<const uint8_t*>(bytes.data()), values.numel() / one.type->block,
                         back.data());
    expect_finite(back.data());
  }
  bytes.resize(aligned(bytes.size()));
  file.write(bytes);
}

}  // namespace

std::string gguf_architecture(const ModelConfig& config) {
  const auto refuse = [](bool condition, const auto&... what) {
    if (condition) throw ConfigError(one_line(text("model.", what..., ": GGUF has no word for it")));
  };
  refuse(config.mlp != "swiglu", "mlp = \"", config.mlp, "\"");
  refuse(config.norm != "rmsnorm", "norm = \"", config.norm, "\"");
  refuse(config.embedding_scale != 1.0, "embedding_scale = ", config.embedding_scale);
  refuse(config.residual.form != "prenorm", "residual = \"", config.residual.form, "\"");
  for (const char* type : {"dynamic", "longrope"})
    refuse(config.rope.rope_type == type, text("rope_scaling.rope_type = \"", type, "\""));
  refuse(config.rope.rope_type == "yarn" && !config.rope.truncate, "rope_scaling.truncate = false");
  for (const AttentionEntry& entry : config.attention) {
    const auto* dense = std::get_if<DenseConfig>(&entry.config);
    refuse(dense == nullptr, "attention.kind = \"", entry.kind(), "\" of layers ", entry.layers);
    refuse(!dense->rope, "attention.rope = false of layers ", entry.layers);
    refuse(dense->output_gate, "attention.output_gate = true of layers ", entry.layers);
  }
  const bool other_biases = config.attention_output_bias || config.mlp_bias;
  if (config.qk_norm) {
    refuse(config.attention_bias || other_biases, "qk_norm = true beside biases");
    return "qwen3";
  }
  return config.attention_bias && !other_biases ? "qwen2" : "llama";
}

void write_gguf(const std::string& path, const ModelConfig& config, const NamedTensors& tensors,
                const std::map<std::string, std::string>& tokenizer, const GgufOptions& options) {
  const std::string architecture = gguf_architecture(config);
  const std::vector<Planned> all = plan_all(config, architecture, tensors, matrix_type(options.type));
  const std::string header = header_of(keys_of(config, architecture, options, tokenizer), all);
  const fs::path target = fs::absolute(path).lexically_normal();
  std::error_code error;
  check<CheckpointError>(!fs::exists(target, error), one_line(path), ": exists; expected a new file");
  check<CheckpointError>(fs::is_directory(target.parent_path(), error), one_line(path),
                         ": no such folder to write it in");
  const TemporaryFolder beside(target.parent_path());
  CheckedFile file(beside.path("model.gguf"));
  file.write(header);
  for (const Planned& one : all) write_tensor(file, one);
  file.finish();
  fs::rename(beside.path("model.gguf"), target, error);
  check<CheckpointError>(!error, one_line(path), ": cannot be written: ", error.message());
  sync_folder(target.parent_path().string());
}

}  // namespace longreach
