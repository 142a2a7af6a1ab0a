// Native sparse attention's layer: projections, rotary embedding, compression, three branches, gates.
#include "layers/attention/nsa/nsa.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "layers/attention/nsa/block_counts.h"
#include "layers/attention/nsa/documents.h"
#include "layers/attention/nsa/module.h"
#include "layers/basic/initialization.h"
#include "layers/basic/rope_documents.h"
#include "layers/ops/common/check.h"

namespace longreach {
namespace nsa {
namespace {

bool is_lucidrains(const NsaConfig& config) { return config.layout == "lucidrains"; }

NsaOptions options_of(const NsaConfig& config) {
  return {.form = is_lucidrains(config) ? NsaForm::lucidrains : NsaForm::paper,
          .compress_block = config.compress_block,
          .compress_stride = config.compress_stride,
          .block_size = config.block_size,
          .num_blocks = config.num_blocks,
          .first_blocks = config.first_blocks,
          .latest_blocks = config.latest_blocks,
          .window = config.window};
}

// Features 0, 2, 4, ... then 1, 3, 5, ...: pairs that turn together, as rotate() wants them. Products of q
// and k do not see the order.
at::Tensor halves_of_pairs(const at::Tensor& x) {
  return x.unflatten(-1, {-1, 2}).transpose(-1, -2).flatten(-2);
}

// A window's mean as a linear map, so that training begins with pooled keys, and noise to tell heads apart.
at::Tensor mean_and_noise(int64_t heads, int64_t block, int64_t size, double std, uint64_t seed) {
  const at::Tensor mean = at::eye(size).repeat({block, 1}) / static_cast<double>(block);
  const at::Tensor noise = normal_parameter({heads, block * size, size}, std, seed);
  return noise / std::sqrt(static_cast<double>(block)) + mean.to(noise.device());
}

// int64 [1, M]: the first position of every window, document by document.
at::Tensor window_positions(const NsaOptions& options, const at::Tensor& cu_seqlens, int64_t tokens) {
  const PoolWindows windows = nsa_windows(options, cu_seqlens);
  const auto places = [&](int64_t count) { return at::arange(count, at::kLong) * options.compress_stride; };
  if (!cu_seqlens.defined()) return places(window_count(windows, tokens)).unsqueeze(0);
  const at::Tensor bounds = window_cu_seqlens(windows);
  const auto* bound = bounds.const_data_ptr<int32_t>();
  std::vector<at::Tensor> parts{places(0)};  // of a row without documents
  for (int64_t n = 0; n + 1 < bounds.numel(); ++n) parts.push_back(places(bound[n + 1] - bound[n]));
  return at::cat(parts).unsqueeze(0);
}

// Sum over positions 0 .. tokens - 1 of what `seen` gives, over tokens.
template <class Seen>
double average(int64_t tokens, Seen seen) {
  double sum = 0;
  for (int64_t position = 0; position < tokens; ++position) sum += static_cast<double>(seen(position));
  return sum / static_cast<double>(tokens);
}

}  // namespace

NsaAttention::NsaAttention(const NsaConfig& config, const LayerSite& site)
    : SoftmaxAttention(site, true), config_(config), options_(options_of(config)) {
  compress_turned_ = config.compress_rope == "keys" ||
                     (config.compress_rope == "auto" && config.layout == "fla" && config.compress == "mean");
  const int64_t gates = config.layout == "xunhaolai" ? 3 : 3 * site.num_heads;
  gate_ = register_module("g_proj",
                          std::make_shared<Linear>(site.hidden_size, gates, site.initializer_range,
                                                   derive_seed(site.seed, "g_proj"), is_lucidrains(config)));
  if (is_lucidrains(config)) {
    const at::NoGradGuard no_grad;
    // The window leads at first.
    gate_->named_parameters()["bias"].copy_(at::tensor({-2.0f, -2.0f, 2.0f}).repeat({site.num_heads}));
  }
  register_phi(config);
}

void NsaAttention::register_phi(const NsaConfig& config) {
  const int64_t heads = site_.num_kv_heads, size = site_.head_dim, block = config.compress_block;
  if (config.layout != "fla" || config.compress != "mean")
    key_positions_ = register_parameter("intra_block_pe", at::zeros({heads, block, size}), WeightDecay::no);
  if (is_lucidrains(config)) {
    value_positions_ =
        register_parameter("intra_block_pe_value", at::zeros({heads, block, size}), WeightDecay::no);
    if (config.memory_slots > 0)
      memory_ = register_parameter("compress_memory", at::zeros({2, heads, config.memory_slots, size}),
                                   WeightDecay::no);
  }
  if (config.compress == "weighted") {
    const at::Tensor mean = at::full({heads, block}, 1.0 / static_cast<double>(block));
    compress_key_ = register_parameter("compress_key", mean.clone(), WeightDecay::no);
    compress_value_ = register_parameter("compress_value", mean.clone(), WeightDecay::no);
  } else if (config.compress == "linear") {
    const auto make = [&](const char* name) {
      return register_parameter(
          name, mean_and_noise(heads, block, size, site_.initializer_range, derive_seed(site_.seed, name)),
          WeightDecay::yes);
    };
    compress_key_ = make("compress_key");
    compress_value_ = make("compress_value");
  } else if (config.compress == "mlp") {
    const auto make = [&](const std::string& name) {
      const int64_t width = block * size;
      const double std = 1.0 / std::sqrt(static_cast<double>(width));
      auto mlp = register_module(name, std::make_shared<torch::nn::Module>());
      for (const auto& [layer, out] : {std::pair{"up", width}, {"down", size}})
        mlp->register_module(
            layer, std::make_shared<Linear>(width, out, std, derive_seed(site_.seed, name + layer), true));
      return mlp;
    };
    mlp_key_ = make("compress_key");
    mlp_value_ = make("compress_value");
  }
}

static NsaCompression phi_of(const std::string& kind, const at::Tensor& weight,
                             const std::shared_ptr<torch::nn::Module>& mlp, const at::Tensor& positions) {
  NsaCompression phi{.kind = kind, .weight = weight, .positions = positions};
  if (!mlp) return phi;
  const auto parameters = mlp->named_parameters();
  phi.weight = parameters["up.weight"];
  phi.bias = parameters["up.bias"];
  phi.down_weight = parameters["down.weight"];
  phi.down_bias = parameters["down.bias"];
  return phi;
}

NsaCompression NsaAttention::key_phi() const {
  return phi_of(config_.compress, compress_key_, mlp_key_, key_positions_);
}

NsaCompression NsaAttention::value_phi() const {
  return phi_of(config_.compress, compress_value_, mlp_value_, value_positions_);
}

at::Tensor NsaAttention::turn(const at::Tensor& x, const Rotation& rotation) const {
  return rotate(is_lucidrains(config_) ? halves_of_pairs(x) : x, rotation);
}

at::Tensor NsaAttention::turn(const at::Tensor& x, const at::Tensor& positions, int64_t length) const {
  return turn(x, rotation_at(positions, x, length));
}

NsaAttention::Tokens NsaAttention::tokens(const at::Tensor& x, const at::Tensor& positions,
                                          int64_t length) const {
  const Heads plain = split_heads(x);
  return {plain, {turn(plain.q, positions, length), turn(plain.k, positions, length), plain.v}};
}

at::Tensor NsaAttention::gate(const at::Tensor& x) const {
  return at::sigmoid(gate_->forward(x)).unflatten(-1, {-1, 3});
}

at::Tensor NsaAttention::place(const at::Tensor& k_cmp, const at::Tensor& positions, int64_t length) const {
  if (compress_turned_ || is_lucidrains(config_)) return k_cmp;
  return turn(k_cmp, positions.expand({k_cmp.size(0), -1}), length);
}

void NsaAttention::set_memory(NsaInput& in) const {
  if (!memory_.defined()) return;
  in.memory_k = memory_.select(0, 0);
  in.memory_v = memory_.select(0, 1);
}

NsaProbe NsaAttention::finish(const at::Tensor& x, NsaInput in, const std::array<double, 3>& branches) const {
  in.gate = gate(x);
  if (branches != kAllBranches)
    in.gate = in.gate * at::tensor(at::ArrayRef<double>(branches), in.gate.options());
  set_memory(in);
  const NsaOutput out = nsa_attention_by(site_.implementation, in, {}, options_);
  return {merge(out.o), out.block_indices};
}

NsaProbe NsaAttention::probe(const at::Tensor& x, const Batch& batch,
                             const std::array<double, 3>& branches) const {
  check<ShapeError>(!batch.context, "nsa: one rank has a part of the sequence, expected all of it");
  expect_shape(batch.positions, "positions", {x.size(0), x.size(1)});
  const bool packed = batch.cu_seqlens.defined();
  const int64_t length = batch.positions.numel() == 0 ? 0 : batch.positions.max().item<int64_t>() + 1;
  const auto [plain, turned] = tokens(x, batch.positions, packed ? 0 : length);
  const at::Tensor k_cmp =
      nsa_compress(compress_turned_ ? turned.k : plain.k, key_phi(), options_, batch.cu_seqlens);
  const at::Tensor places = window_positions(options_, batch.cu_seqlens, x.size(1)).to(x.device());
  NsaInput in{.q = turned.q, .k = turned.k, .v = turned.v};
  if (is_lucidrains(config_)) in.q_cmp = plain.q;
  if (packed && !compress_turned_ && !is_lucidrains(config_))
    in.k_cmp = rotate(
        k_cmp, at_tokens(rotation_at(batch.positions, x),
                         tokens_of_rows(batch.cu_seqlens,
                                        window_cu_seqlens(nsa_windows(options_, batch.cu_seqlens)), places)));
  else
    in.k_cmp = place(k_cmp, places, length);
  in.v_cmp = nsa_compress(plain.v, value_phi(), options_, batch.cu_seqlens);
  in.cu_seqlens = batch.cu_seqlens;
  return finish(x, in, branches);
}

AttentionOutput NsaAttention::forward(const at::Tensor& x, const Batch& batch) {
  return {batch.context ? forward_context(x, batch) : probe(x, batch, kAllBranches).y, {}};
}

double NsaAttention::flops_per_token(int64_t seq_len) const {
  const int64_t tokens = std::max<int64_t>(seq_len, 1), size = options_.block_size;
  const int64_t listed = options_.num_blocks + (is_lucidrains(config_) ? 1 : 0);
  const double windows =
      static_cast<double>(memory_.defined() ? config_.memory_slots : 0) +
      average(tokens, [&](int64_t p) { return nsa::visible_windows(options_, p, tokens); });
  const double selected =
      average(tokens, [&](int64_t p) { return std::min(listed - 1, p / size) * size + p % size + 1; });
  const double window = average(tokens, [&](int64_t p) { return std::min(p + 1, options_.window); });
  // Choosing reads the compressed branch's probabilities again; phi runs once every stride tokens, for k and
  // v.
  double phi = static_cast<double>(site_.num_kv_heads * site_.head_dim * config_.compress_block) * 2.0;
  if (config_.compress == "linear") phi *= static_cast<double>(site_.head_dim);
  if (mlp_key_) {
    phi = 0;
    for (const auto& weight : mlp_key_->parameters())
      if (weight.dim() == 2) phi += 2.0 * static_cast<double>(weight.numel() * site_.num_kv_heads);
  }
  return flops(windows + selected + window) + gate_->flops() +
         2.0 * phi / static_cast<double>(config_.compress_stride);
}

}  // namespace nsa

NsaProbe nsa_probe(Attention& layer, const at::Tensor& x, const Batch& batch,
                   const std::array<double, 3>& branches) {
  const auto* module = dynamic_cast<const nsa::NsaAttention*>(&layer);
  check<ConfigError>(module != nullptr, "nsa_probe: the layer is no `nsa` attention");
  return module->probe(x, batch, branches);
}

std::shared_ptr<Attention> make_attention(const NsaConfig& config, const LayerSite& site) {
  return std::make_shared<nsa::NsaAttention>(config, site);
}

}  // namespace longreach
