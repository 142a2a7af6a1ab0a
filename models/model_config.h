// The sizes of a decoder and its attention, layer by layer. Keys are those of a Hugging Face config.json.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/fields.h"
#include "layers/attention/mechanisms.h"
#include "layers/basic/layer_site.h"

namespace longreach {

// What a branch's output is added to. minimax: the input of the branch after its norm, instead of the stream
// before it; stream = alpha * normed + beta * branch, by kind of branch (transformers' MiniMaxConfig).
struct ResidualConfig {
  std::string form = "prenorm";  // prenorm | minimax
  double full_attn_alpha_factor = 1.0, full_attn_beta_factor = 1.0;
  double linear_attn_alpha_factor = 1.0, linear_attn_beta_factor = 1.0;  // kinds of the family "linear"
  double mlp_alpha_factor = 1.0, mlp_beta_factor = 1.0;
};

struct ModelConfig {
  // A Hugging Face config.json (or its folder) to take the sizes from; keys given beside it win.
  std::string config;
  int64_t vocab_size = 0;  // 0: the tokenizer's
  int64_t hidden_size = 256;
  int64_t intermediate_size = 0;  // 0: 8/3 hidden_size rounded up to a multiple of 32
  int64_t num_hidden_layers = 4;
  int64_t num_attention_heads = 4;
  int64_t num_key_value_heads = 0;  // 0: num_attention_heads
  int64_t head_dim = 0;             // 0: hidden_size / num_attention_heads
  int64_t max_position_embeddings = 2048;
  double rms_norm_eps = 1e-5;
  double initializer_range = 0.02;
  bool tie_word_embeddings = true;
  bool qk_norm = false;
  bool attention_bias = false;
  bool attention_output_bias = false;
  bool mlp_bias = false;
  std::string mlp = "swiglu";              // swiglu | sglu
  std::string norm = "rmsnorm";            // rmsnorm | srmsnorm
  double embedding_scale = 1.0;            // TransNormerLLM: sqrt(hidden_size)
  std::string residual_dtype = "float32";  // float32 | bfloat16: the residual stream under mixed precision
  ResidualConfig residual;
  RopeConfig rope;                        // keys rope_theta and [model.rope_scaling]
  std::vector<AttentionEntry> attention;  // [[model.attention]]

  // No key: what reads the file that `config` names, such as read_hugging_face_config; without it the key is
  // refused.
  void (*read_sizes)(const std::string& path, ModelConfig& config) = nullptr;
  // No key: the config.json that the sizes already come from.
  std::string loaded_config;
  // No key: which code computes the layers. `reference` serves verification in float64.
  Implementation implementation = Implementation::fused;

  // Parsing reads `config` as soon as it is met, so that the keys that follow win over it. Rules that span
  // keys are rejected where the visitor can still name file and line.
  void fields(FieldVisitor& visit);

  // Fills the zeros above from the other keys and checks what spans keys; afterwards the config stands
  // without the file `config` named. Call once, after parsing. vocab_size: the tokenizer's. Throws
  // ConfigError naming the key.
  void resolve(int64_t tokenizer_vocab_size);

  // Whether any layer has a rotary embedding.
  bool uses_rope() const;
};

}  // namespace longreach
