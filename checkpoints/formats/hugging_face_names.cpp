#include "checkpoints/formats/hugging_face_names.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>

#include <regex>
#include <variant>

#include "checkpoints/formats/hugging_face_fla.h"
#include "core/error.h"

namespace longreach {
namespace {

// Names that are understood are short; expressions see no others.
constexpr size_t kLongestName = 200;

constexpr std::pair<const char*, const char*> kExpert[] = {
    {"mlp.gate_proj.", "block_sparse_moe.experts.0.w1."},
    {"mlp.down_proj.", "block_sparse_moe.experts.0.w2."},
    {"mlp.up_proj.", "block_sparse_moe.experts.0.w3."}};

// flash-linear-attention's, for every model of its own.
constexpr std::pair<const char*, const char*> kFla[] = {{"model.embed_tokens.", "model.embeddings."},
                                                        {".input_layernorm.", ".attn_norm."},
                                                        {".self_attn.", ".attn."},
                                                        {".post_attention_layernorm.", ".mlp_norm."}};

std::string replaced(const std::string& name, const std::string& from, const std::string& to) {
  const size_t at = name.find(from);
  return at == std::string::npos ? name : name.substr(0, at) + to + name.substr(at + from.size());
}

std::string minimax_name(std::string ours) {
  for (const auto& [our, their] : kExpert) ours = replaced(ours, our, their);
  return ours;
}

NamedTensors fla_tensors(const NamedTensors& tensors) {
  NamedTensors all;
  for (const auto& [ours, tensor] : tensors) {
    std::string name = ours;
    for (const auto& [our, their] : kFla) name = replaced(name, our, their);
    all.emplace_back(name, tensor);
  }
  return all;
}

// What MiniMax's class keeps of a lightning layer: its slopes, and powers of its decays in a block.
void add_decays(const std::string& layer, const at::Tensor& log_decay, NamedTensors& tensors) {
  const at::Tensor slope = log_decay.neg().to(at::kFloat).view({-1, 1, 1});
  const at::Tensor place = at::arange(1, kMinimaxBlock + 1, at::kFloat).unsqueeze(1);
  const at::Tensor distance = place - place.t();
  tensors.emplace_back(layer + "slope_rate", slope);
  tensors.emplace_back(layer + "query_decay", (slope * place).neg().exp());
  tensors.emplace_back(layer + "key_decay", (slope * (kMinimaxBlock - place)).neg().exp());
  tensors.emplace_back(layer + "diagonal_decay",
                       ((slope * distance.clamp_min(0)).neg().exp() * (distance >= 0)).unsqueeze(0));
}

NamedTensors minimax_tensors(const ModelConfig& config, const NamedTensors& tensors) {
  NamedTensors all;
  for (const auto& [name, tensor] : tensors) all.emplace_back(minimax_name(name), tensor);
  int64_t layer = 0;
  for (const AttentionConfig& kind : attention_per_layer(config.attention, config.num_hidden_layers)) {
    const std::string prefix = text("model.layers.", layer, ".");
    all.emplace_back(prefix + "block_sparse_moe.gate.weight", at::zeros({1, config.hidden_size}));
    if (std::holds_alternative<LightningConfig>(kind))
      add_decays(prefix + "self_attn.",
                 lightning_log_decay("minimax", config.num_attention_heads, layer, config.num_hidden_layers),
                 all);
    ++layer;
  }
  return all;
}

}  // namespace

std::string our_name(const std::string& theirs) {
  static const std::regex expert(R"(model\.layers\.\d+\.block_sparse_moe\.experts\.0\.w[123]\.weight)");
  static const std::regex fla(
      R"(model\.embeddings\.weight|model\.layers\.\d+\.(attn_norm|attn|mlp_norm)\..+)");
  if (theirs.size() > kLongestName) return theirs;
  std::string name = theirs;
  if (std::regex_match(theirs, expert))
    for (const auto& [our, their] : kExpert) name = replaced(name, their, our);
  else if (std::regex_match(theirs, fla))
    for (const auto& [our, their] : kFla) name = replaced(name, their, our);
  return name;
}

bool follows_from_config(const std::string& theirs) {
  static const std::regex buffers(
      R"(model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq|)"
      R"(model\.layers\.\d+\.self_attn\.(slope_rate|query_decay|key_decay|diagonal_decay)|)"
      R"(model\.layers\.\d+\.(block_sparse_moe|mlp)\.gate\.weight)");
  return theirs.size() <= kLongestName && std::regex_match(theirs, buffers);
}

NamedTensors hugging_face_tensors(const std::string& family, const ModelConfig& config,
                                  const NamedTensors& tensors) {
  if (family == kFlaNsaType) return fla_tensors(tensors);
  return family == "minimax" ? minimax_tensors(config, tensors) : tensors;
}

}  // namespace longreach
