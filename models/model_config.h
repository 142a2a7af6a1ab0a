// The sizes of a decoder and its attention, layer by layer. Keys are those of a Hugging Face config.json.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/fields.h"
#include "layers/attention_config.h"
#include "layers/layer_site.h"

namespace longreach {

struct ModelConfig {
  std::string
      config;  // a Hugging Face config.json (or its folder) to take the sizes from; keys given beside it win
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
  std::string residual_dtype = "float32";  // float32 | bfloat16: the residual stream under mixed precision
  RopeConfig rope;                         // keys rope_theta and [model.rope_scaling]
  std::vector<AttentionEntry> attention;   // [[model.attention]]

  void fields(FieldVisitor& visit);

  // Fills the zeros above from the other keys, reads `config`, checks what spans keys. Call once, after
  // parsing. vocab_size: the tokenizer's. Throws ConfigError naming the key.
  void resolve(int64_t tokenizer_vocab_size);
};

}  // namespace longreach
