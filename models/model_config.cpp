// Keys, defaults that depend on other keys, and the rules that span them.
#include "models/model_config.h"

#include <algorithm>
#include <map>
#include <utility>

#include "core/config_place.h"
#include "core/error.h"
#include "core/naming.h"
#include "layers/basic/rope.h"

namespace longreach {
namespace {

constexpr int64_t kLargest = int64_t{1} << 31;

void rope_fields(RopeConfig& rope, FieldVisitor& visit) {
  visit.field(
      "rope_type", rope.rope_type,
      {.help =
           "how the rotary embedding reaches beyond its training length; dynamic generates text up to it, "
           "longrope up to it or behind longer prompts",
       .allowed = one_of({"default", "linear", "dynamic", "yarn", "llama3", "longrope"})});
  visit.field("factor", rope.factor, {.help = "new length / old length", .allowed = RealRange{1.0}});
  visit.field("original_max_position_embeddings", rope.original_max_position_embeddings,
              {.help = "old length; 0: max_position_embeddings", .allowed = between(0, kLargest)});
  visit.field("low_freq_factor", rope.low_freq_factor, {.help = "llama3", .allowed = positive_real()});
  visit.field("high_freq_factor", rope.high_freq_factor, {.help = "llama3", .allowed = positive_real()});
  visit.field("beta_fast", rope.beta_fast, {.help = "yarn", .allowed = positive_real()});
  visit.field("beta_slow", rope.beta_slow, {.help = "yarn", .allowed = positive_real()});
  visit.field("attention_factor", rope.attention_factor,
              {.help = "yarn, longrope: factor of cos and sin; 0: 0.1 ln(factor) + 1, "
                       "sqrt(1 + ln(factor) / ln(old length))",
               .allowed = RealRange{0.0}});
  visit.field("truncate", rope.truncate,
              {.help = "yarn: the ramp between kept and stretched features begins "
                       "and ends at whole ones"});
  visit.field("short_factor", rope.short_factor,
              {.help = "longrope: factors of wavelengths up to the old length, head_dim / 2 of them"});
  visit.field("long_factor", rope.long_factor, {.help = "longrope: the same of longer sequences"});
}

void residual_fields(ResidualConfig& residual, FieldVisitor& visit) {
  visit.field(
      "residual", residual.form,
      {.help = "what a branch is added to: the stream, or (minimax) alpha times what its norm made of it",
       .allowed = one_of({"prenorm", "minimax"})});
  visit.section("minimax", "Factors of residual = \"minimax\", with the names of its config.json.",
                [&](auto& v) {
                  const Field normed{.help = "of the normed input"}, branch{.help = "of the output"};
                  v.field("full_attn_alpha_factor", residual.full_attn_alpha_factor, normed);
                  v.field("full_attn_beta_factor", residual.full_attn_beta_factor, branch);
                  v.field("linear_attn_alpha_factor", residual.linear_attn_alpha_factor, normed);
                  v.field("linear_attn_beta_factor", residual.linear_attn_beta_factor, branch);
                  v.field("mlp_alpha_factor", residual.mlp_alpha_factor, normed);
                  v.field("mlp_beta_factor", residual.mlp_beta_factor, branch);
                });
}

void size_fields(ModelConfig& c, FieldVisitor& visit) {
  const Allowed size = between(1, kLargest), size_or_zero = between(0, kLargest);
  visit.field("vocab_size", c.vocab_size, {.help = "tokens; absent: the tokenizer's", .allowed = size});
  visit.field("hidden_size", c.hidden_size, {.help = "width of the residual stream", .allowed = size});
  visit.field("intermediate_size", c.intermediate_size,
              {.help = "width of the feed-forward block; 0: 8/3 hidden_size, up to a multiple of 32",
               .allowed = size_or_zero});
  visit.field("num_hidden_layers", c.num_hidden_layers, {.help = "layers", .allowed = between(1, 10000)});
  visit.field("num_attention_heads", c.num_attention_heads,
              {.help = "query heads", .allowed = between(1, 65536)});
  visit.field("num_key_value_heads", c.num_key_value_heads,
              {.help = "key and value heads of softmax attention; 0: num_attention_heads",
               .allowed = between(0, 65536)});
  visit.field("head_dim", c.head_dim,
              {.help = "0: hidden_size / num_attention_heads", .allowed = between(0, 256)});
  visit.field("max_position_embeddings", c.max_position_embeddings,
              {.help = "tokens the model is made for; rope scalings start from it", .allowed = size});
}

// Every layer is served once: notes the layers of a table, and names it and the earlier one that has one of
// them.
void expect_free(const std::vector<int64_t>& layers, const AttentionEntry& entry,
                 std::map<int64_t, std::string>& served, FieldVisitor& visit) {
  const auto* places = dynamic_cast<const KeyPlaces*>(&visit);
  const std::string own = text("\"", entry.layers, "\" (kind = \"", entry.kind(), "\"",
                               places ? ", " + places->place_of("layers") : "", ")");
  for (const int64_t layer : layers) {
    const auto [at, free] = served.emplace(layer, own);
    if (!free) visit.reject("layers", text("layer ", layer, " is served by both ", at->second, " and ", own));
  }
}

// From the file that config.config names.
void take_sizes(ModelConfig& config) {
  check<ConfigError>(config.read_sizes != nullptr, config.config, ": nothing here reads such files");
  config.read_sizes(config.config, config);
}

// Whether one of the layers has a rotary embedding.
bool any_turns(const std::vector<AttentionConfig>& layers) {
  return std::any_of(layers.begin(), layers.end(), [](const AttentionConfig& config) {
    return std::visit(
        [](const auto& kind) {
          bool used = false;
          if constexpr (requires { kind.turns(); })
            used = kind.turns();
          else if constexpr (requires { kind.rope; })
            used = kind.rope;
          if constexpr (requires { kind.gate_rope; }) used = used || kind.gate_rope;
          return used;
        },
        config);
  });
}

}  // namespace

void ModelConfig::fields(FieldVisitor& visit) {
  visit.field(
      "config", config,
      {.help = "a Hugging Face config.json, or its folder, to take the sizes from; keys beside it win"});
  bool inherited = false;  // `attention` comes from that file, and the first table given here replaces it
  if (!config.empty() && config != loaded_config) {
    try {
      take_sizes(*this);
    } catch (const ConfigError& error) {
      visit.reject("config", error.what());
    }
    loaded_config = config;
    inherited = true;
  }
  size_fields(*this, visit);
  visit.field("rms_norm_eps", rms_norm_eps, {.help = "added to mean squares", .allowed = positive_real()});
  visit.field(
      "initializer_range", initializer_range,
      {.help =
           "standard deviation of initial weights; projections into the residual stream: / sqrt(2 layers)",
       .allowed = positive_real()});
  visit.field("tie_word_embeddings", tie_word_embeddings, {.help = "the output layer is the embedding"});
  visit.field("qk_norm", qk_norm, {.help = "RMSNorm of each query and key head (Qwen3)"});
  visit.field("attention_bias", attention_bias, {.help = "biases on q, k, v projections (Qwen2)"});
  visit.field("attention_output_bias", attention_output_bias,
              {.help = "a bias on the output projection of softmax kinds"});
  visit.field("mlp_bias", mlp_bias, {.help = "biases in the feed-forward block"});
  visit.field("mlp", mlp,
              {.help = "feed-forward block: SwiGLU, or SGLU without activation (TransNormerLLM)",
               .allowed = one_of({"swiglu", "sglu"})});
  visit.field("norm", norm,
              {.help = "RMSNorm, or SRMSNorm without weight (TransNormerLLM)",
               .allowed = one_of({"rmsnorm", "srmsnorm"})});
  visit.field(
      "embedding_scale", embedding_scale,
      {.help = "factor of the embeddings (TransNormerLLM: sqrt(hidden_size))", .allowed = positive_real()});
  visit.field(
      "residual_dtype", residual_dtype,
      {.help = "of the residual stream under mixed precision", .allowed = one_of({"float32", "bfloat16"})});
  residual_fields(residual, visit);
  visit.field("rope_theta", rope.theta, {.help = "base of the rotary embedding", .allowed = RealRange{1.0}});
  visit.section("rope_scaling", "longer contexts than trained on",
                [&](FieldVisitor& v) { rope_fields(rope, v); });
  std::map<int64_t, std::string> served;  // layer -> the table that serves it
  const auto append = [&](FieldVisitor& v) {
    if (std::exchange(inherited, false)) attention.clear();
    AttentionEntry& entry = attention.emplace_back();
    entry.fields(v);
    std::vector<int64_t> layers;
    try {
      layers = parse_layers(entry.layers, num_hidden_layers);
    } catch (const ConfigError& error) {
      v.reject("layers", error.what());
    }
    expect_free(layers, entry, served, v);
  };
  visit.tables("attention", "the mechanism of each layer; none: dense everywhere", append, attention.size(),
               [&](size_t i, FieldVisitor& v) { attention[i].fields(v); });
}

void ModelConfig::resolve(int64_t tokenizer_vocab_size) {
  if (!config.empty() && config != loaded_config) take_sizes(*this);
  config.clear();
  if (vocab_size == 0) vocab_size = tokenizer_vocab_size;
  check<ConfigError>(vocab_size > 0,
                     "model.vocab_size: expected a positive number, or a tokenizer to take it from");
  check<ConfigError>(vocab_size >= tokenizer_vocab_size, "model.vocab_size = ", vocab_size,
                     ": the tokenizer has ", tokenizer_vocab_size, " tokens");
  if (intermediate_size == 0) intermediate_size = (8 * hidden_size + 95) / 96 * 32;
  if (num_key_value_heads == 0) num_key_value_heads = num_attention_heads;
  check<ConfigError>(num_attention_heads % num_key_value_heads == 0,
                     "model.num_key_value_heads = ", num_key_value_heads,
                     ": must divide num_attention_heads = ", num_attention_heads);
  if (head_dim == 0) {
    check<ConfigError>(hidden_size % num_attention_heads == 0, "model.hidden_size = ", hidden_size,
                       ": no multiple of num_attention_heads = ", num_attention_heads, "; give head_dim");
    head_dim = hidden_size / num_attention_heads;
  }
  check<ConfigError>(head_dim >= 1 && head_dim <= 256, "model.head_dim = ", head_dim, ": expected 1 to 256");
  const auto layers = attention_per_layer(attention, num_hidden_layers);
  LayerSite site{.num_heads = num_attention_heads,
                 .num_kv_heads = num_key_value_heads,
                 .head_dim = head_dim,
                 .num_layers = num_hidden_layers,
                 .max_position_embeddings = max_position_embeddings,
                 .rope = rope};
  for (; site.layer < num_hidden_layers; ++site.layer) {
    const AttentionConfig& config = layers[static_cast<size_t>(site.layer)];
    naming<ConfigError>(text("model.attention: layer ", site.layer, " (", kind_of(config), ")"),
                        [&] { expect_fits(config, site); });
  }
  if (any_turns(layers))
    prefixing<ConfigError>("model.", [&] { RotaryEmbedding(rope, head_dim, max_position_embeddings); });
}

bool ModelConfig::uses_rope() const { return any_turns(attention_per_layer(attention, num_hidden_layers)); }

}  // namespace longreach
