#include "checkpoints/formats/hugging_face_sala.h"

#include <cmath>
#include <optional>
#include <set>
#include <variant>

#include "checkpoints/formats/layer_tables.h"
#include "core/error.h"

namespace longreach {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kSoftmax = "minicpm4";
constexpr const char* kLightning = "lightning-attn";

template <class... What>
void expect_known(bool known, const What&... what) {
  check<ConfigError>(known, what..., ": MiniCPMSALAForCausalLM does not have it");
}

// What the layers of each kind have in common; nothing where there is no such layer.
struct Kinds {
  std::vector<bool> lightning;  // each layer
  std::optional<AttentionConfig> softmax;
  std::optional<LightningConfig> linear;
};

const char* word(bool value) { return value ? "true" : "false"; }

void expect_dense(const DenseConfig& own, const AttentionConfig& first, const std::string& where) {
  expect_known(!own.rope, where, "rope = true");
  const auto* other = std::get_if<DenseConfig>(&first);
  expect_known(other, where, "kind = \"dense\" beside an earlier layer's \"infllm\"");
  expect_known(own.output_gate == other->output_gate, where, "output_gate = ", word(own.output_gate),
               " unlike an earlier layer's");
}

void expect_sparse(const InfllmConfig& own, const AttentionConfig& first, const std::string& where) {
  expect_known(!own.rope, where, "rope = true");
  const auto* other = std::get_if<InfllmConfig>(&first);
  expect_known(other, where, "kind = \"infllm\" beside an earlier layer's \"dense\"");
  expect_known(own == *other, where, "options of \"infllm\" unlike an earlier layer's");
}

void expect_linear(const LightningConfig& own, const LightningConfig& first, const std::string& where) {
  expect_known(own.form == "hypenet", where, "form = \"", own.form, "\"");
  expect_known(own.decay == "auto" || own.decay == "hypenet", where, "decay = \"", own.decay, "\"");
  expect_known(own.rope == first.rope, where, "rope = ", word(own.rope), " unlike an earlier layer's");
  expect_known(own.scale_of(4) == first.scale_of(4), where, "scale = \"", own.scale,
               "\" unlike an earlier layer's");
}

Kinds kinds_of(const ModelConfig& config) {
  Kinds kinds;
  for (const AttentionConfig& layer : attention_per_layer(config.attention, config.num_hidden_layers)) {
    const std::string where = text("model.attention: layer ", kinds.lightning.size(), ": ");
    const auto* dense = std::get_if<DenseConfig>(&layer);
    const auto* sparse = std::get_if<InfllmConfig>(&layer);
    const auto* linear = std::get_if<LightningConfig>(&layer);
    expect_known(dense || sparse || linear, where, "kind = \"", kind_of(layer), "\"");
    if (linear) {
      if (!kinds.linear) kinds.linear = *linear;
      expect_linear(*linear, *kinds.linear, where);
    } else {
      if (!kinds.softmax) kinds.softmax = layer;
      dense ? expect_dense(*dense, *kinds.softmax, where) : expect_sparse(*sparse, *kinds.softmax, where);
    }
    kinds.lightning.push_back(linear != nullptr);
  }
  return kinds;
}

std::string scale_name(const LightningConfig& config) {
  return config.scale == "auto" ? "1/sqrt(d)" : config.scale;
}

void expect_equal(const HuggingFaceReader& root, const char* key, int64_t absent, int64_t value,
                  const char* name) {
  int64_t found = absent;
  root.read(key, found, 1, int64_t{1} << 31);
  if (found != value) root.fail(key, text("expected ", name, " = ", value));
}

// Each layer's mixer; the names are those that its programs take.
std::vector<bool> mixers(const HuggingFaceReader& root, int64_t layers) {
  static const std::set<std::string> lightning{"lightning", "lightning_attn", kLightning};
  std::vector<std::string> types;
  root.read("mixer_types", types);
  if (static_cast<int64_t>(types.size()) != layers)
    root.fail("mixer_types", text("expected ", layers, " of them (num_hidden_layers)"));
  std::vector<bool> result;
  for (const std::string& type : types) {
    if (type != kSoftmax && lightning.count(type) == 0)
      root.fail("mixer_types",
                text("whose `", type.substr(0, 100), "` is none of ", kSoftmax, ", ", kLightning));
    result.push_back(type != kSoftmax);
  }
  return result;
}

bool has_output_gate(const std::optional<AttentionConfig>& softmax) {
  if (!softmax) return false;
  const auto* sparse = std::get_if<InfllmConfig>(&*softmax);
  return sparse ? sparse->output_gate : std::get<DenseConfig>(*softmax).output_gate;
}

// Of all layers with a softmax; null: they are dense.
Json sparse_config(const std::optional<AttentionConfig>& softmax) {
  const auto* sparse = softmax ? std::get_if<InfllmConfig>(&*softmax) : nullptr;
  if (!sparse) return {};
  return {{"kernel_size", sparse->kernel_size},
          {"kernel_stride", sparse->kernel_stride},
          {"init_blocks", sparse->first_blocks},
          {"block_size", sparse->block_size},
          {"window_size", sparse->window},
          {"topk", sparse->num_blocks},
          {"use_nope", false},
          {"dense_len", sparse->dense_len}};
}

// use_nope: keys before rotation are scored; here none is rotated.
InfllmConfig read_sparse(const std::string& file, const HuggingFaceReader& root) {
  const nlohmann::json table = root.table("sparse_config");
  const HuggingFaceReader keys(file, table, "sparse_config.");
  InfllmConfig sparse;
  sparse.rope = false;
  sparse.dense_len = 8192;
  const int64_t most = int64_t{1} << 30;
  keys.read("kernel_size", sparse.kernel_size, 1, most);
  keys.read("kernel_stride", sparse.kernel_stride, 1, most);
  keys.read("init_blocks", sparse.first_blocks, 0, most);
  keys.read("block_size", sparse.block_size, 16, 128);
  keys.read("window_size", sparse.window, 0, most);
  keys.read("topk", sparse.num_blocks, 1, most);
  keys.read("dense_len", sparse.dense_len, 0, most);
  keys.has("use_nope");
  keys.expect_all_known({}, {});
  if (const auto wrong = sparse.contradiction())
    root.fail("sparse_config", text("sizes that fit each other: ", wrong->first, ": ", wrong->second));
  return sparse;
}

// Factors of embedding, branches and logits (muP).
void read_scales(const HuggingFaceReader& root, ModelConfig& config) {
  config.embedding_scale = 12.0;
  root.read("scale_emb", config.embedding_scale);
  double depth = 1.4;
  root.read("scale_depth", depth);
  if (depth / std::sqrt(static_cast<double>(config.num_hidden_layers)) != 1.0)
    root.fail("scale_depth", "expected sqrt(num_hidden_layers): branches have no factor here");
  expect_equal(root, "dim_model_base", 256, config.hidden_size, "hidden_size");
}

}  // namespace

void expect_sala(const ModelConfig& config) {
  expect_known(config.norm == "rmsnorm", "model.norm = \"", config.norm, "\"");
  expect_known(config.mlp == "swiglu", "model.mlp = \"", config.mlp, "\"");
  expect_known(config.residual.form == "prenorm", "model.residual = \"", config.residual.form, "\"");
  expect_known(!config.qk_norm, "model.qk_norm (of dense layers)");
  expect_known(!config.attention_bias, "model.attention_bias");
  expect_known(!config.attention_output_bias, "model.attention_output_bias");
  expect_known(!config.mlp_bias, "model.mlp_bias");
  expect_known(config.rope.rope_type == "default", "model.rope_scaling.rope_type = \"", config.rope.rope_type,
               "\"");
  const Kinds kinds = kinds_of(config);
  check<ConfigError>(!kinds.lightning.front(),
                     "model.attention: layer 0: kind = \"lightning\": the first layer of "
                     "MiniCPMSALAForCausalLM has a softmax");
}

void add_sala(const ModelConfig& config, Json& json) {
  const Kinds kinds = kinds_of(config);
  const LightningConfig linear = kinds.linear.value_or(LightningConfig{.form = "hypenet"});
  Json mixers = Json::array();
  for (const bool lightning : kinds.lightning) mixers.push_back(lightning ? kLightning : kSoftmax);
  json["mixer_types"] = mixers;
  json["lightning_nh"] = config.num_attention_heads;
  json["lightning_nkv"] = config.num_attention_heads;
  json["lightning_head_dim"] = config.head_dim;
  json["lightning_scale"] = scale_name(linear);
  json["lightning_use_rope"] = linear.rope;
  json["qk_norm"] = true;  // of lightning layers
  json["use_output_norm"] = true;
  json["use_output_gate"] = true;
  json["attn_use_rope"] = false;
  json["attn_use_output_gate"] = has_output_gate(kinds.softmax);
  json["sparse_config"] = sparse_config(kinds.softmax);
  json["scale_emb"] = config.embedding_scale;
  json["scale_depth"] = std::sqrt(static_cast<double>(config.num_hidden_layers));
  json["dim_model_base"] = config.hidden_size;
}

void read_sala(const std::string& file, const HuggingFaceReader& root, ModelConfig& config) {
  read_scales(root, config);
  for (const char* key : {"qk_norm", "use_output_norm", "use_output_gate"}) root.expect(key, true);
  root.expect("attn_use_rope", false);
  const int64_t heads = config.num_attention_heads;
  expect_equal(root, "lightning_nh", heads, heads, "num_attention_heads");
  const int64_t kv_heads = config.num_key_value_heads > 0 ? config.num_key_value_heads : heads;
  expect_equal(root, "lightning_nkv", kv_heads, heads, "num_attention_heads");
  expect_equal(root, "lightning_head_dim", config.head_dim, config.head_dim, "head_dim");
  LightningConfig lightning;
  lightning.form = "hypenet";
  root.read("lightning_use_rope", lightning.rope);
  lightning.scale = "1/sqrt(d)";
  root.read("lightning_scale", lightning.scale);
  if (lightning.scale != "1/sqrt(d)" && lightning.scale != "1/d" && lightning.scale != "none")
    root.fail("lightning_scale", "expected 1/sqrt(d), 1/d or none");
  bool gate = true;
  root.read("attn_use_output_gate", gate);
  AttentionConfig softmax = DenseConfig{.rope = false, .output_gate = gate};
  if (root.has("sparse_config")) {
    InfllmConfig sparse = read_sparse(file, root);
    sparse.output_gate = gate;
    softmax = sparse;
  }
  set_layers(config, mixers(root, config.num_hidden_layers), lightning, softmax);
}

}  // namespace longreach
