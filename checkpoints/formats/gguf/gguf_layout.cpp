#include "checkpoints/formats/gguf/gguf_layout.h"

#include "core/error.h"

namespace longreach {
namespace {

// rows [heads * a * b, ...] -> [heads * b * a, ...]
at::Tensor swapped(const at::Tensor& rows, int64_t heads, int64_t a, int64_t b) {
  return rows.reshape({heads, a, b, -1}).transpose(1, 2).reshape(rows.sizes()).contiguous();
}

// The tensors of one layer.
void add_layer(int64_t layer, const ModelConfig& c, bool pairs, std::vector<GgufPlace>& all) {
  const std::string ours = text("model.layers.", layer, "."), theirs = text("blk.", layer, ".");
  const auto add = [&](const std::string& our, const std::string& their, std::vector<int64_t> shape,
                       int64_t heads = 0) {
    all.push_back({ours + our, theirs + their, std::move(shape), pairs ? heads : 0});
  };
  const auto linear = [&](const std::string& our, const std::string& their, int64_t out, int64_t in,
                          bool bias, int64_t heads = 0) {
    add(our + ".weight", their + ".weight", {out, in}, heads);
    if (bias) add(our + ".bias", their + ".bias", {out}, heads);
  };
  const int64_t q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  const int64_t hidden = c.hidden_size, inner = c.intermediate_size;
  add("input_layernorm.weight", "attn_norm.weight", {hidden});
  linear("self_attn.q_proj", "attn_q", q, hidden, c.attention_bias, c.num_attention_heads);
  linear("self_attn.k_proj", "attn_k", kv, hidden, c.attention_bias, c.num_key_value_heads);
  linear("self_attn.v_proj", "attn_v", kv, hidden, c.attention_bias);
  linear("self_attn.o_proj", "attn_output", hidden, q, c.attention_output_bias);
  if (c.qk_norm) {
    add("self_attn.q_norm.weight", "attn_q_norm.weight", {c.head_dim});
    add("self_attn.k_norm.weight", "attn_k_norm.weight", {c.head_dim});
  }
  add("post_attention_layernorm.weight", "ffn_norm.weight", {hidden});
  linear("mlp.gate_proj", "ffn_gate", inner, hidden, c.mlp_bias);
  linear("mlp.up_proj", "ffn_up", inner, hidden, c.mlp_bias);
  linear("mlp.down_proj", "ffn_down", hidden, inner, c.mlp_bias);
}

}  // namespace

std::vector<GgufPlace> gguf_layout(const ModelConfig& config, const std::string& architecture) {
  std::vector<GgufPlace> all;
  all.push_back(
      {"model.embed_tokens.weight", "token_embd.weight", {config.vocab_size, config.hidden_size}, 0});
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    add_layer(layer, config, architecture == "llama", all);
  all.push_back({"model.norm.weight", "output_norm.weight", {config.hidden_size}, 0});
  if (!config.tie_word_embeddings)
    all.push_back({"lm_head.weight", "output.weight", {config.vocab_size, config.hidden_size}, 0});
  return all;
}

at::Tensor pairs_to_halves(const at::Tensor& rows, int64_t heads) {
  return swapped(rows, heads, rows.size(0) / heads / 2, 2);
}

at::Tensor halves_to_pairs(const at::Tensor& rows, int64_t heads) {
  return swapped(rows, heads, 2, rows.size(0) / heads / 2);
}

}  // namespace longreach
