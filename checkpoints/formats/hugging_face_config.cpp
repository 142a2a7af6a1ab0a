#include "checkpoints/formats/hugging_face_config.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "checkpoints/formats/hugging_face_family.h"
#include "checkpoints/formats/hugging_face_fla.h"
#include "checkpoints/formats/hugging_face_json.h"
#include "checkpoints/formats/hugging_face_sala.h"
#include "checkpoints/formats/layer_tables.h"
#include "checkpoints/formats/longreach_code.h"
#include "core/error.h"

namespace longreach {
namespace {

using Reader = HuggingFaceReader;

constexpr int64_t kLargest = int64_t{1} << 31;

// Keys that say nothing about what the model computes: of the tokenizer, of how transformers runs, generates
// and trains, and what its older versions write for every model.
const std::set<std::string>& without_effect() {
  static const std::set<std::string> keys{"_attn_implementation",
                                          "_attn_implementation_autoset",
                                          "_flash_attn_2_enabled",
                                          "_name_or_path",
                                          "add_cross_attention",
                                          "architectures",
                                          "attention_dropout",
                                          "attn_implementation",
                                          "bad_words_ids",
                                          "begin_suppress_tokens",
                                          "block_size",
                                          "bos_token_id",
                                          "chunk_size_feed_forward",
                                          "cross_attention_hidden_size",
                                          "decoder_start_token_id",
                                          "diversity_penalty",
                                          "do_sample",
                                          "dtype",
                                          "early_stopping",
                                          "encoder_no_repeat_ngram_size",
                                          "eos_token_id",
                                          "exponential_decay_length_penalty",
                                          "finetuning_task",
                                          "forced_bos_token_id",
                                          "forced_eos_token_id",
                                          "gradient_checkpointing",
                                          "id2label",
                                          "is_decoder",
                                          "is_encoder_decoder",
                                          "is_llama_config",
                                          "label2id",
                                          "length_penalty",
                                          "max_length",
                                          "max_sequence_length",
                                          "min_length",
                                          "no_repeat_ngram_size",
                                          "num_beam_groups",
                                          "num_beams",
                                          "num_return_sequences",
                                          "output_attentions",
                                          "output_hidden_states",
                                          "output_router_logits",
                                          "output_scores",
                                          "pad_token_id",
                                          "prefix",
                                          "problem_type",
                                          "pruned_heads",
                                          "remove_invalid_values",
                                          "repetition_penalty",
                                          "return_dict",
                                          "return_dict_in_generate",
                                          "router_aux_loss_coef",
                                          "router_jitter_noise",
                                          "sep_token_id",
                                          "suppress_tokens",
                                          "task_specific_params",
                                          "temperature",
                                          "tf_legacy_loss",
                                          "tie_encoder_decoder",
                                          "tokenizer_class",
                                          "top_k",
                                          "top_p",
                                          "torch_dtype",
                                          "torchscript",
                                          "transformers.js_config",
                                          "transformers_version",
                                          "typical_p",
                                          "unk_token_id",
                                          "unsloth_fixed",
                                          "unsloth_version",
                                          "use_bfloat16",
                                          "use_cache"};
  return keys;
}

// What transformers takes where a file of the family does not say it.
void take_defaults(const std::string& type, ModelConfig& config) {
  config.tie_word_embeddings = false;
  config.rms_norm_eps = type == "minimax" ? 1e-5 : 1e-6;
  static const std::map<std::string, int64_t> positions{
      {"llama", 2048}, {"mistral", 131072}, {"minimax", 131072}, {kSalaType, 524288}, {kFlaNsaType, 2048}};
  const auto known = positions.find(type);
  config.max_position_embeddings = known == positions.end() ? 32768 : known->second;
  config.rope.theta = type == "minimax" ? 1e6 : 1e4;
  if (type == "qwen3" || type == kSalaType) config.head_dim = 128;
}

void read_sizes(const Reader& root, ModelConfig& config) {
  root.read("vocab_size", config.vocab_size, 1, kLargest);
  root.read("hidden_size", config.hidden_size, 1, kLargest);
  root.read("intermediate_size", config.intermediate_size, 1, kLargest);
  root.read("num_hidden_layers", config.num_hidden_layers, 1, 10000);
  root.read("num_attention_heads", config.num_attention_heads, 1, 65536);
  root.read("num_key_value_heads", config.num_key_value_heads, 1, 65536);
  root.read("head_dim", config.head_dim, 1, 256);
  root.read("max_position_embeddings", config.max_position_embeddings, 1, kLargest);
  root.read("rms_norm_eps", config.rms_norm_eps);
  root.read("initializer_range", config.initializer_range);
  root.read("tie_word_embeddings", config.tie_word_embeddings);
}

// Llama and Qwen3 mean the output projection too; Qwen2 has biases on q, k, v whatever the file says.
void read_biases(const Reader& root, const std::string& type, ModelConfig& config) {
  bool bias = false;
  root.read("attention_bias", bias);
  const bool none = type == "mistral" || type == "minimax" || type == kSalaType || type == kFlaNsaType;
  if (bias && none) root.fail("attention_bias", "expected false");
  config.attention_bias = bias || type == "qwen2";
  config.attention_output_bias = bias && type != "qwen2";
  root.read("mlp_bias", config.mlp_bias);
  if (config.mlp_bias && type != "llama") root.fail("mlp_bias", "expected false");
}

// YaRN's own factor of cos and sin, from one or the other way to give it (DeepSeek's two scales).
void read_attention_factor(const Reader& scaling, RopeConfig& rope) {
  scaling.read("attention_factor", rope.attention_factor);
  double mscale = 0, all = 0;
  scaling.read("mscale", mscale);
  scaling.read("mscale_all_dim", all);
  const auto of = [&](double scale) {
    return rope.factor <= 1.0 ? 1.0 : 0.1 * scale * std::log(rope.factor) + 1.0;
  };
  if (!scaling.has("attention_factor") && mscale > 0 && all > 0) rope.attention_factor = of(mscale) / of(all);
}

// transformers 5 keeps everything in rope_parameters; before it was rope_scaling, with `type` before
// `rope_type`.
void read_rope(const std::string& file, const Reader& root, int64_t positions, RopeConfig& rope) {
  root.read("rope_theta", rope.theta);
  root.expect("rope_interleaved", false);
  root.expect("partial_rotary_factor", 1.0);
  const char* key = root.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  root.has("rope_scaling");
  const nlohmann::json table = root.table(key);
  const Reader scaling(file, table, text(key, "."));
  scaling.read("rope_theta", rope.theta);
  scaling.expect("partial_rotary_factor", 1.0);
  scaling.read("type", rope.rope_type);
  scaling.read("rope_type", rope.rope_type);
  const std::vector<std::string> types{"default", "linear", "dynamic", "yarn", "llama3", "longrope"};
  if (std::find(types.begin(), types.end(), rope.rope_type) == types.end())
    scaling.fail(scaling.has("rope_type") ? "rope_type" : "type", text("expected one of ", join(types)));
  const auto needs = [&](const char* name) {
    if (!scaling.has(name)) scaling.fail(name, text("which `", rope.rope_type, "` needs"));
  };
  scaling.read("original_max_position_embeddings", rope.original_max_position_embeddings, 0, kLargest);
  // Llama-like models of transformers take it from max_position_embeddings.
  if (rope.rope_type == "dynamic") rope.original_max_position_embeddings = 0;
  scaling.read("factor", rope.factor);
  const bool longrope = rope.rope_type == "longrope";
  if (longrope) {
    root.read("original_max_position_embeddings", rope.original_max_position_embeddings, 0,
              kLargest);  // Phi's
    if (rope.original_max_position_embeddings == 0)
      scaling.fail("original_max_position_embeddings", "which `longrope` needs");
    for (const char* name : {"short_factor", "long_factor"}) needs(name);
  }
  scaling.read("short_factor", rope.short_factor);
  scaling.read("long_factor", rope.long_factor);
  if ((rope.rope_type == "yarn" || longrope) && !scaling.has("factor") &&
      rope.original_max_position_embeddings > 0)
    rope.factor = static_cast<double>(positions) / static_cast<double>(rope.original_max_position_embeddings);
  else if (rope.rope_type != "default")
    needs("factor");
  for (const char* name : {"low_freq_factor", "high_freq_factor"})
    if (rope.rope_type == "llama3") needs(name);
  scaling.read("low_freq_factor", rope.low_freq_factor);
  scaling.read("high_freq_factor", rope.high_freq_factor);
  scaling.read("beta_fast", rope.beta_fast);
  scaling.read("beta_slow", rope.beta_slow);
  scaling.read("truncate", rope.truncate);
  read_attention_factor(scaling, rope);
  scaling.expect_all_known({}, {});
}

// layer_types, each one of two; empty where the file has none.
std::vector<bool> layer_types(const Reader& root, int64_t layers, const std::string& special) {
  std::vector<std::string> types;
  root.read("layer_types", types);
  if (types.empty()) return {};
  if (static_cast<int64_t>(types.size()) != layers)
    root.fail("layer_types", text("expected ", layers, " of them (num_hidden_layers)"));
  std::vector<bool> result;
  for (const std::string& type : types) {
    if (type != special && type != "full_attention")
      root.fail("layer_types",
                text("whose `", type.substr(0, 100), "` is none of full_attention, ", special));
    result.push_back(type == special);
  }
  return result;
}

void read_windows(const Reader& root, const std::string& type, ModelConfig& config) {
  SlidingConfig sliding;
  sliding.window = 4096;
  root.read("sliding_window", sliding.window, 1, int64_t{1} << 30);
  const auto layers = static_cast<size_t>(config.num_hidden_layers);
  if (type == "mistral") {
    const bool off = !root.has("sliding_window") && root.present("sliding_window");
    if (!off) set_layers(config, std::vector<bool>(layers, true), sliding, DenseConfig{});
    return;
  }
  if (type != "qwen2" && type != "qwen3") {
    if (root.has("sliding_window")) root.fail("sliding_window", "expected null");
    return;
  }
  bool use_window = false;
  int64_t first = 28;
  root.read("use_sliding_window", use_window);
  root.read("max_window_layers", first, 0, 10000);
  std::vector<bool> windowed = layer_types(root, config.num_hidden_layers, "sliding_attention");
  const bool any = std::find(windowed.begin(), windowed.end(), true) != windowed.end();
  if (any && !use_window) root.fail("use_sliding_window", "expected true beside sliding layer_types");
  if (!use_window || (!root.has("sliding_window") && root.present("sliding_window"))) return;
  for (size_t i = windowed.size(); i < layers; ++i) windowed.push_back(static_cast<int64_t>(i) >= first);
  set_layers(config, windowed, sliding, DenseConfig{});
}

// MiniMax: lightning and softmax attention, and of its experts one.
void read_minimax(const Reader& root, ModelConfig& config) {
  ResidualConfig& residual = config.residual;
  residual.form = "minimax";
  for (const auto& [key, value] : {std::pair{"full_attn_alpha_factor", &residual.full_attn_alpha_factor},
                                   {"full_attn_beta_factor", &residual.full_attn_beta_factor},
                                   {"linear_attn_alpha_factor", &residual.linear_attn_alpha_factor},
                                   {"linear_attn_beta_factor", &residual.linear_attn_beta_factor},
                                   {"mlp_alpha_factor", &residual.mlp_alpha_factor},
                                   {"mlp_beta_factor", &residual.mlp_beta_factor}})
    root.read(key, *value);
  int64_t experts = 8, chosen = 2;
  root.read("num_local_experts", experts, 1, 1 << 20);
  root.read("num_experts_per_tok", chosen, 1, 1 << 20);
  if (experts != 1) root.fail("num_local_experts", "expected 1");
  if (chosen != 1) root.fail("num_experts_per_tok", "expected 1");
  std::vector<bool> linear = layer_types(root, config.num_hidden_layers, "linear_attention");
  for (int64_t i = static_cast<int64_t>(linear.size()); i < config.num_hidden_layers; ++i)
    linear.push_back(i % 2 == 1);
  LightningConfig lightning;
  lightning.form = "minimax";
  set_layers(config, linear, lightning, DenseConfig{});
}

void expect_sizes(const Reader& root) {
  std::string type;
  root.read("model_type", type);
  const char* heads = type == kFlaNsaType ? "num_heads" : "num_attention_heads";
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", heads})
    if (!root.has(key)) root.fail(key, "expected a size");
}

// Whether it is a model of ours that no family has: its keys are [model]'s.
bool read_own(const std::string& file, const nlohmann::json& json, ModelConfig& config) {
  if (json.value("model_type", nlohmann::json()) != kLongreachType) return false;
  read_longreach_config(json, file, config);
  return true;
}

void read_family(const std::string& file, const Reader& root, ModelConfig& config) {
  std::string type, activation = "silu";
  root.read("model_type", type);
  const std::vector<std::string>& families = hugging_face_types();
  if (std::find(families.begin(), families.end(), type) == families.end())
    root.fail("model_type", text("expected one of ", join(families), did_you_mean(type, families)));
  take_defaults(type, config);
  read_sizes(root, config);
  root.read("hidden_act", activation);
  if (activation != "silu" && activation != "swish") root.fail("hidden_act", "expected silu");
  root.expect("pretraining_tp", 1.0);
  root.expect("use_mrope", false);
  config.qk_norm = type == "qwen3";
  read_biases(root, type, config);
  read_rope(file, root, config.max_position_embeddings, config.rope);
  read_windows(root, type, config);
  if (type == "minimax") read_minimax(root, config);
  if (type == kSalaType) read_sala(file, root, config);
  if (type == kFlaNsaType) read_fla_nsa(root, config);
}

std::string config_file(const std::string& path) {
  return std::filesystem::is_directory(path) ? path + "/config.json" : path;
}

}  // namespace

const std::vector<std::string>& hugging_face_types() {
  static const std::vector<std::string> types = [] {
    std::vector<std::string> all;
    for (const HuggingFaceFamily& family : hugging_face_families()) all.push_back(family.type);
    return all;
  }();
  return types;
}

void read_hugging_face_config(const std::string& path, ModelConfig& config) {
  const std::string file = config_file(path);
  const nlohmann::json json = hugging_face_json(file);
  if (read_own(file, json, config)) return;
  const Reader root(file, json);
  read_family(file, root, config);
  root.expect_all_known(without_effect(), {});
}

ModelConfig hugging_face_config(const std::string& path, const std::set<std::string>& ignored) {
  const std::string file = config_file(path);
  const nlohmann::json json = hugging_face_json(file);
  ModelConfig config;
  if (read_own(file, json, config)) return config;
  const Reader root(file, json);
  read_family(file, root, config);
  expect_sizes(root);
  root.expect_all_known(without_effect(), ignored);
  return config;
}

}  // namespace longreach
