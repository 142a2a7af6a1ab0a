#include "checkpoints/formats/hugging_face_family.h"

#include <algorithm>
#include <cmath>
#include <variant>

#include "checkpoints/formats/hugging_face_fla.h"
#include "checkpoints/formats/hugging_face_names.h"
#include "checkpoints/formats/hugging_face_sala.h"
#include "core/error.h"
#include "core/promise.h"

namespace longreach {
namespace {

using Json = nlohmann::ordered_json;

// Refused rather than left out: the file would say another function.
template <class... What>
void expect_known(bool known, const What&... what) {
  check<ConfigError>(known, what...,
                     ": no family that transformers knows (llama, mistral, qwen2, qwen3, minimax) has it");
}

// The window of each layer, 0 where it sees everything.
std::vector<int64_t> windows_of(const ModelConfig& config) {
  std::vector<int64_t> windows;
  for (const AttentionConfig& layer : attention_per_layer(config.attention, config.num_hidden_layers)) {
    const std::string where = text("model.attention: layer ", windows.size(), ": ");
    const auto* dense = std::get_if<DenseConfig>(&layer);
    const auto* sliding = std::get_if<SlidingConfig>(&layer);
    expect_known(dense || sliding, where, "kind = \"", kind_of(layer), "\"");
    expect_known(dense ? dense->rope : sliding->rope, where, "rope = false");
    expect_known(!dense || !dense->output_gate, where, "output_gate = true");
    expect_known(dense || sliding->sinks == 0, where, "sinks = ", sliding ? sliding->sinks : 0);
    windows.push_back(dense ? 0 : sliding->window);
    expect_known(dense || windows.back() == *std::max_element(windows.begin(), windows.end()), where,
                 "a second window");
  }
  return windows;
}

// Whether each layer is one of MiniMax's lightning ones; the others are dense.
std::vector<bool> lightning_layers(const ModelConfig& config) {
  std::vector<bool> lightning;
  for (const AttentionConfig& layer : attention_per_layer(config.attention, config.num_hidden_layers)) {
    const std::string where =
        text("model.residual = \"minimax\" beside model.attention: layer ", lightning.size(), ": ");
    const auto* dense = std::get_if<DenseConfig>(&layer);
    const auto* linear = std::get_if<LightningConfig>(&layer);
    expect_known(dense || linear, where, "kind = \"", kind_of(layer), "\"");
    expect_known(linear || dense->rope, where, "rope = false");
    expect_known(linear || !dense->output_gate, where, "output_gate = true");
    if (linear) {
      expect_known(linear->form == "minimax", where, "form = \"", linear->form, "\"");
      expect_known(linear->decay == "auto" || linear->decay == "minimax", where, "decay = \"", linear->decay,
                   "\"");
      expect_known(!linear->uses_lrpe(static_cast<int64_t>(lightning.size())), where, "lrpe = \"",
                   linear->lrpe, "\"");
      expect_known(linear->scale_of(config.head_dim) == 1.0, where, "scale = \"", linear->scale, "\"");
    }
    lightning.push_back(linear != nullptr);
  }
  return lightning;
}

void expect_known_options(const ModelConfig& config) {
  expect_known(config.norm == "rmsnorm", "model.norm = \"", config.norm, "\"");
  expect_known(config.mlp == "swiglu", "model.mlp = \"", config.mlp, "\"");
  expect_known(config.embedding_scale == 1.0, "model.embedding_scale = ", config.embedding_scale);
}

struct Family {
  std::string type;
  std::vector<int64_t> windows;
  std::vector<bool> lightning;  // minimax alone
  bool every_layer_slides() const { return std::find(windows.begin(), windows.end(), 0) == windows.end(); }
  int64_t window() const { return *std::max_element(windows.begin(), windows.end()); }
};

Family minimax(const ModelConfig& config) {
  const char* beside = " beside model.residual = \"minimax\"";
  expect_known(!config.qk_norm, "model.qk_norm", beside);
  expect_known(!config.attention_bias, "model.attention_bias", beside);
  expect_known(!config.attention_output_bias, "model.attention_output_bias", beside);
  expect_known(!config.mlp_bias, "model.mlp_bias", beside);
  return {"minimax", {}, lightning_layers(config)};
}

Family family_in_transformers(const ModelConfig& config) {
  expect_known_options(config);
  if (config.residual.form == "minimax") return minimax(config);
  Family family{.windows = windows_of(config)};
  const bool inputs = config.attention_bias, output = config.attention_output_bias;
  expect_known(inputs || !output, "model.attention_output_bias = true without model.attention_bias");
  if (config.qk_norm) {
    expect_known(inputs == output, "model.qk_norm beside biases on q, k, v alone");
    expect_known(!config.mlp_bias, "model.qk_norm beside model.mlp_bias");
    return {"qwen3", family.windows, {}};
  }
  if (inputs && !output) {
    expect_known(!config.mlp_bias, "model.mlp_bias beside biases on q, k, v alone");
    return {"qwen2", family.windows, {}};
  }
  if (family.window() == 0) return {"llama", family.windows, {}};
  expect_known(!inputs && !config.mlp_bias, "a window beside model.attention_output_bias or model.mlp_bias");
  expect_known(family.every_layer_slides(),
               "model.attention: layers with a window beside some without, and neither qk_norm nor biases on "
               "q, k, v alone");
  return {"mistral", family.windows, {}};
}

Family family_that_fits(const ModelConfig& config, const std::string& wanted) {
  if (wanted == kSalaType) {
    expect_sala(config);
    return {kSalaType, {}, {}};
  }
  if (wanted == kFlaNsaType) {
    expect_fla_nsa(config);
    return {kFlaNsaType, {}, {}};
  }
  Family found = family_in_transformers(config);
  check<ConfigError>(wanted == kAnyFamily || found.type == wanted, "family = \"", wanted,
                     "\": the model is one of the family `", found.type, "`");
  return found;
}

const HuggingFaceFamily& described(const std::string& type) {
  const auto& all = hugging_face_families();
  const auto found = std::find_if(all.begin(), all.end(), [&](const auto& one) { return one.type == type; });
  promise(found != all.end(), "hugging_face_families() has every family");
  return *found;
}

Family family_of(const ModelConfig& config, const std::string& wanted) {
  Family family = family_that_fits(config, wanted);
  const std::vector<std::string>& kinds = described(family.type).kinds;
  for (const AttentionEntry& entry : config.attention)
    promise(std::find(kinds.begin(), kinds.end(), entry.kind()) != kinds.end(),
            "hugging_face_families() has every kind that a family's layers may be of");
  return family;
}

// rope_scaling as transformers reads it since 4.45; null where nothing is scaled.
Json scaling_of(const RopeConfig& rope, int64_t original) {
  if (rope.rope_type == "default") return {};
  Json json{{"rope_type", rope.rope_type}, {"factor", rope.factor}};
  if (rope.rope_type == "yarn" || rope.rope_type == "llama3" || rope.rope_type == "longrope")
    json["original_max_position_embeddings"] = original;
  if (rope.rope_type == "llama3") {
    json["low_freq_factor"] = rope.low_freq_factor;
    json["high_freq_factor"] = rope.high_freq_factor;
  }
  if (rope.rope_type == "longrope") {
    json["short_factor"] = rope.short_factor;
    json["long_factor"] = rope.long_factor;
  }
  if (rope.attention_factor != 0.0 && (rope.rope_type == "yarn" || rope.rope_type == "longrope"))
    json["attention_factor"] = rope.attention_factor;
  if (rope.rope_type == "yarn") {
    json["beta_fast"] = rope.beta_fast;
    json["beta_slow"] = rope.beta_slow;
    if (!rope.truncate) json["truncate"] = false;
  }
  return json;
}

void add_positions(const ModelConfig& config, Json& json) {
  const RopeConfig& rope = config.rope;
  int64_t positions = config.max_position_embeddings;
  const int64_t original =
      rope.original_max_position_embeddings > 0 ? rope.original_max_position_embeddings : positions;
  // There it is max_position_embeddings that `dynamic` starts from, and some versions take yarn's factor to
  // be max_position_embeddings / original_max_position_embeddings, whatever they are told.
  if (rope.rope_type == "dynamic") positions = original;
  if (rope.rope_type == "yarn") positions = std::llround(rope.factor * static_cast<double>(original));
  json["max_position_embeddings"] = positions;
  json["rope_theta"] = rope.theta;
  json["rope_scaling"] = scaling_of(rope, original);
}

void add_windows(const Family& family, Json& json) {
  const bool qwen = family.type == "qwen2" || family.type == "qwen3";
  if (family.type == "mistral") json["sliding_window"] = family.window();
  if (!qwen) return;
  const bool used = family.window() > 0;
  json["use_sliding_window"] = used;
  json["sliding_window"] = used ? Json(family.window()) : Json();
  const auto first = std::find_if(family.windows.begin(), family.windows.end(), [](auto w) { return w > 0; });
  json["max_window_layers"] = first - family.windows.begin();
  Json types = Json::array();
  for (const int64_t window : family.windows)
    types.push_back(window > 0 ? "sliding_attention" : "full_attention");
  json["layer_types"] = types;
}

// One expert, which its router always chooses.
void add_minimax(const Family& family, const ResidualConfig& residual, Json& json) {
  Json types = Json::array();
  for (const bool linear : family.lightning) types.push_back(linear ? "linear_attention" : "full_attention");
  json["layer_types"] = types;
  json["block_size"] = kMinimaxBlock;
  json["num_local_experts"] = 1;
  json["num_experts_per_tok"] = 1;
  json["full_attn_alpha_factor"] = residual.full_attn_alpha_factor;
  json["full_attn_beta_factor"] = residual.full_attn_beta_factor;
  json["linear_attn_alpha_factor"] = residual.linear_attn_alpha_factor;
  json["linear_attn_beta_factor"] = residual.linear_attn_beta_factor;
  json["mlp_alpha_factor"] = residual.mlp_alpha_factor;
  json["mlp_beta_factor"] = residual.mlp_beta_factor;
}

}  // namespace

const std::vector<HuggingFaceFamily>& hugging_face_families() {
  static const std::vector<HuggingFaceFamily> families{
      {"llama", "LlamaForCausalLM", {"dense"}},
      {"mistral", "MistralForCausalLM", {"sliding"}},
      {"qwen2", "Qwen2ForCausalLM", {"dense", "sliding"}},
      {"qwen3", "Qwen3ForCausalLM", {"dense", "sliding"}},
      {"minimax", "MiniMaxForCausalLM", {"dense", "lightning"}},
      {kSalaType, "MiniCPMSALAForCausalLM", {"dense", "lightning", "infllm"}},
      {kFlaNsaType, "NSAForCausalLM", {"nsa"}},
  };
  return families;
}

std::string hugging_face_family(const ModelConfig& config, const std::string& wanted) {
  return family_of(config, wanted).type;
}

nlohmann::ordered_json hugging_face_keys(const ModelConfig& config, const std::string& wanted) {
  const Family family = family_of(config, wanted);
  Json json;
  json["architectures"] = Json::array({described(family.type).architecture});
  json["model_type"] = family.type;
  if (family.type == kFlaNsaType) {
    json.update(fla_nsa_keys(config));
    return json;
  }
  json["vocab_size"] = config.vocab_size;
  json["hidden_size"] = config.hidden_size;
  json["intermediate_size"] = config.intermediate_size;
  json["num_hidden_layers"] = config.num_hidden_layers;
  json["num_attention_heads"] = config.num_attention_heads;
  json["num_key_value_heads"] = config.num_key_value_heads;
  json["head_dim"] = config.head_dim;
  json["hidden_act"] = "silu";
  add_positions(config, json);
  add_windows(family, json);
  if (family.type == "minimax") add_minimax(family, config.residual, json);
  if (family.type == kSalaType) add_sala(config, json);
  if (family.type == "llama" || family.type == "qwen3") json["attention_bias"] = config.attention_output_bias;
  if (family.type == "llama") json["mlp_bias"] = config.mlp_bias;
  json["attention_dropout"] = 0.0;
  json["rms_norm_eps"] = config.rms_norm_eps;
  json["initializer_range"] = config.initializer_range;
  json["tie_word_embeddings"] = config.tie_word_embeddings;
  return json;
}

}  // namespace longreach
