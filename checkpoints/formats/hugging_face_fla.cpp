#include "checkpoints/formats/hugging_face_fla.h"

#include <bit>
#include <optional>
#include <variant>

#include "core/error.h"

namespace longreach {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kLargest = int64_t{1} << 31;
// Of its layers, whatever the config says: NSABlock does not hand the key on.
constexpr int64_t kHeadDim = 64;

template <class... What>
void expect_known(bool known, const What&... what) {
  check<ConfigError>(known, what..., ": flash-linear-attention's NSAForCausalLM does not have it");
}

bool same_options(const NsaConfig& a, const NsaConfig& b) {
  return a.block_size == b.block_size && a.num_blocks == b.num_blocks && a.window == b.window;
}

// Mean pooling of the blocks that are chosen; forced are the first, the previous and the own one.
void expect_mean_pool(const NsaConfig& nsa, const std::string& where) {
  expect_known(nsa.layout == "fla", where, "layout = \"", nsa.layout, "\"");
  expect_known(nsa.compress == "mean", where, "compress = \"", nsa.compress, "\"");
  expect_known(nsa.compress_rope != "compressed", where, "compress_rope = \"compressed\"");
  expect_known(nsa.compress_block == nsa.block_size, where, "compress_block = ", nsa.compress_block,
               " beside block_size = ", nsa.block_size);
  expect_known(nsa.compress_stride == nsa.block_size, where, "compress_stride = ", nsa.compress_stride,
               " beside block_size = ", nsa.block_size);
  expect_known(nsa.first_blocks == 1, where, "first_blocks = ", nsa.first_blocks);
  expect_known(nsa.latest_blocks == 2, where, "latest_blocks = ", nsa.latest_blocks);
  expect_known(std::has_single_bit(static_cast<uint64_t>(nsa.num_blocks)), where,
               "num_blocks = ", nsa.num_blocks, " (its kernels round the number up to a power of two)");
}

NsaConfig options_of(const ModelConfig& config) {
  std::optional<NsaConfig> first;
  int64_t number = 0;
  for (const AttentionConfig& layer : attention_per_layer(config.attention, config.num_hidden_layers)) {
    const std::string where = text("model.attention: layer ", number++, ": ");
    const auto* nsa = std::get_if<NsaConfig>(&layer);
    expect_known(nsa != nullptr, where, "kind = \"", kind_of(layer), "\"");
    expect_mean_pool(*nsa, where);
    if (!first) first = *nsa;
    expect_known(same_options(*nsa, *first), where, "sizes unlike an earlier layer's");
  }
  return *first;
}

}  // namespace

void expect_fla_nsa(const ModelConfig& config) {
  expect_known(config.norm == "rmsnorm", "model.norm = \"", config.norm, "\"");
  expect_known(config.mlp == "swiglu", "model.mlp = \"", config.mlp, "\"");
  expect_known(config.embedding_scale == 1.0, "model.embedding_scale = ", config.embedding_scale);
  expect_known(config.residual.form == "prenorm", "model.residual = \"", config.residual.form, "\"");
  expect_known(!config.qk_norm, "model.qk_norm");
  expect_known(!config.attention_output_bias, "model.attention_output_bias");
  expect_known(!config.mlp_bias, "model.mlp_bias");
  expect_known(config.rope.rope_type == "default", "model.rope_scaling.rope_type = \"", config.rope.rope_type,
               "\"");
  options_of(config);
  expect_known(config.head_dim == kHeadDim, "model.head_dim = ", config.head_dim, " (its layers have ",
               kHeadDim, ")");
}

Json fla_nsa_keys(const ModelConfig& config) {
  const NsaConfig nsa = options_of(config);
  return {{"vocab_size", config.vocab_size},
          {"hidden_size", config.hidden_size},
          {"intermediate_size", config.intermediate_size},
          {"num_hidden_layers", config.num_hidden_layers},
          {"num_heads", config.num_attention_heads},
          {"num_kv_heads", config.num_key_value_heads},
          {"head_dim", config.head_dim},
          {"qkv_bias", config.attention_bias},
          {"block_size", nsa.block_size},
          {"block_counts", nsa.num_blocks},
          {"window_size", nsa.window},
          {"rope_theta", config.rope.theta},
          {"max_position_embeddings", config.max_position_embeddings},
          {"hidden_act", "swish"},
          {"norm_eps", config.rms_norm_eps},
          {"initializer_range", config.initializer_range},
          {"tie_word_embeddings", config.tie_word_embeddings}};
}

void read_fla_nsa(const HuggingFaceReader& root, ModelConfig& config) {
  for (const char* key : {"fuse_norm", "fuse_swiglu", "fuse_cross_entropy", "fuse_linear_cross_entropy",
                          "use_l2warp", "hidden_ratio"})
    root.has(key);  // how it computes, and the default of intermediate_size
  root.expect("elementwise_affine", true);
  if (!root.has("intermediate_size")) root.fail("intermediate_size", "expected a size");
  root.read("num_heads", config.num_attention_heads, 1, 65536);
  config.num_key_value_heads = 4;
  root.read("num_kv_heads", config.num_key_value_heads, 1, 65536);
  int64_t stated = kHeadDim;
  root.read("head_dim", stated, 1, 256);
  if (stated != kHeadDim) root.fail("head_dim", text("expected ", kHeadDim, ", which its layers have"));
  config.head_dim = kHeadDim;
  root.read("qkv_bias", config.attention_bias);
  root.read("norm_eps", config.rms_norm_eps);
  NsaConfig nsa;
  root.read("block_size", nsa.block_size, 1, kLargest);
  nsa.compress_block = nsa.compress_stride = nsa.block_size;
  root.read("block_counts", nsa.num_blocks, 3, kLargest);
  root.read("window_size", nsa.window, 1, int64_t{1} << 30);
  config.attention = {{.config = nsa}};
}

}  // namespace longreach
