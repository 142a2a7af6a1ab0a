// The decoder: embedding, pre-norm layers around a residual stream, final norm, output layer.
#include "models/transformer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>

#include <map>

#include "core/promise.h"
#include "layers/basic/embedding.h"
#include "layers/basic/initialization.h"
#include "layers/basic/loss.h"
#include "layers/basic/mlp.h"
#include "layers/basic/norm.h"
#include "layers/basic/rope.h"
#include "layers/ops/common/check.h"
#include "layers/ops/common/recompute.h"
#include "layers/ops/matmul/matmul.h"

namespace longreach {
namespace {

// alpha * what the branch is added to + beta * its output.
struct Factors {
  double alpha = 1.0, beta = 1.0;

  // Float32 + bfloat16 is float32; a bfloat16 stream stays one.
  at::Tensor join(const at::Tensor& stream, const at::Tensor& branch) const {
    const at::Tensor kept = alpha == 1.0 ? stream : stream * alpha;
    return at::add(kept, branch, beta).to(stream.scalar_type());
  }
};

// One block: x += attention(norm(x)); x += mlp(norm(x)). With residual = "minimax" the normed input takes the
// place of x, and factors stand before both. Names are those of Hugging Face's Llama.
class DecoderLayer : public torch::nn::Module {
 public:
  DecoderLayer(const ModelConfig& config, const AttentionConfig& attention, const LayerSite& site) {
    const auto norm = [&](const char* name) {
      return register_module(name, std::make_shared<Norm>(config.norm, site.hidden_size, site.norm_eps));
    };
    const ResidualConfig& residual = config.residual;
    normed_ = residual.form == "minimax";
    if (normed_) {
      const bool linear = family_of(attention) == "linear";
      attention_factors_ = linear
                               ? Factors{residual.linear_attn_alpha_factor, residual.linear_attn_beta_factor}
                               : Factors{residual.full_attn_alpha_factor, residual.full_attn_beta_factor};
      mlp_factors_ = {residual.mlp_alpha_factor, residual.mlp_beta_factor};
    }
    input_layernorm_ = norm("input_layernorm");
    attention_ = register_module("self_attn", make_attention(attention, site));
    post_attention_layernorm_ = norm("post_attention_layernorm");
    mlp_ = register_module(
        "mlp", std::make_shared<Mlp>(config.mlp, config.intermediate_size, config.mlp_bias, site));
  }

  // x [B, T, C] in the dtype of the residual stream; the branches compute in `dtype`.
  AttentionOutput forward(const at::Tensor& x, const Batch& batch, at::ScalarType dtype) {
    const Entered in = enter(*input_layernorm_, x, dtype);
    AttentionOutput out = attention_->forward(in.branch, batch);
    out.y = feed_forward(attention_factors_.join(in.stream, out.y), dtype);
    return out;
  }

  // forward in two steps.
  at::Tensor attend(const at::Tensor& x, const Batch& batch, at::ScalarType dtype) {
    return attention_->forward(enter(*input_layernorm_, x, dtype).branch, batch).y;
  }
  at::Tensor after_attention(const at::Tensor& x, const at::Tensor& attention, at::ScalarType dtype) const {
    return feed_forward(attention_factors_.join(enter(*input_layernorm_, x, dtype).stream, attention), dtype);
  }

  at::Tensor decode(const at::Tensor& x, DecodeState& state, at::ScalarType dtype) {
    const Entered in = enter(*input_layernorm_, x, dtype);
    return feed_forward(attention_factors_.join(in.stream, attention_->decode(in.branch, state)), dtype);
  }

  const Attention& attention() const { return *attention_; }
  double flops(int64_t seq_len) const { return attention_->flops_per_token(seq_len) + mlp_->flops(); }

 private:
  struct Entered {
    at::Tensor stream, branch;  // what the output is added to, what the branch computes from
  };
  Entered enter(const Norm& norm, const at::Tensor& x, at::ScalarType dtype) const {
    if (!normed_) return {x, norm.forward(x, dtype)};
    const at::Tensor stream = norm.forward(x, x.scalar_type());
    return {stream, stream.to(dtype)};
  }
  at::Tensor feed_forward(const at::Tensor& x, at::ScalarType dtype) const {
    const Entered in = enter(*post_attention_layernorm_, x, dtype);
    return mlp_factors_.join(in.stream, mlp_->forward(in.branch));
  }

  bool normed_ = false;
  Factors attention_factors_, mlp_factors_;
  std::shared_ptr<Norm> input_layernorm_, post_attention_layernorm_;
  std::shared_ptr<Attention> attention_;
  std::shared_ptr<Mlp> mlp_;
};

LayerSite site_of(const ModelConfig& config, int64_t layer, uint64_t seed,
                  std::shared_ptr<RotaryEmbedding> rotary) {
  return {.hidden_size = config.hidden_size,
          .num_heads = config.num_attention_heads,
          .num_kv_heads = config.num_key_value_heads,
          .head_dim = config.head_dim,
          .layer = layer,
          .num_layers = config.num_hidden_layers,
          .max_position_embeddings = config.max_position_embeddings,
          .norm_eps = config.rms_norm_eps,
          .initializer_range = config.initializer_range,
          .qk_norm = config.qk_norm,
          .attention_bias = config.attention_bias,
          .attention_output_bias = config.attention_output_bias,
          .rope = config.rope,
          .rotary = std::move(rotary),
          .seed = derive_seed(seed, text("layers.", layer)),
          .implementation = config.implementation};
}

}  // namespace

struct Transformer::Body {
  ModelConfig config;
  std::shared_ptr<Embedding> embed_tokens;
  std::vector<std::shared_ptr<DecoderLayer>> layers;
  std::shared_ptr<Norm> norm;
  std::shared_ptr<Linear> lm_head;  // null: tied
  UnitGuard* guard = nullptr;
  std::optional<at::ScalarType> dtype;  // of the branches; else that of the embedding

  const at::Tensor& head() const { return lm_head ? lm_head->weight() : embed_tokens->weight(); }
  double head_flops() const { return 2.0 * static_cast<double>(head().numel()); }

  at::Tensor embed(const at::Tensor& tokens, const LossOptions& options) const {
    at::Tensor x = embed_tokens->forward(tokens.to(embed_tokens->weight().device()));
    const bool narrow = compute_dtype(options) == at::kBFloat16;
    if (x.scalar_type() == at::kBFloat16) x = x.to(at::kFloat);
    if (config.embedding_scale != 1.0) x = x * config.embedding_scale;
    return narrow && config.residual_dtype == "bfloat16" ? x.to(at::kBFloat16) : x;
  }

  at::ScalarType compute_dtype(const LossOptions& options) const {
    return options.autocast_bf16 ? at::kBFloat16 : dtype.value_or(embed_tokens->weight().scalar_type());
  }

  struct Hidden {
    at::Tensor x;                                           // after the last norm, in the computing dtype
    std::map<std::string, std::vector<at::Tensor>> losses;  // one a layer that names it, over its count
  };
  Hidden run(const at::Tensor& tokens, const Batch& batch, const LossOptions& options,
             const LossCounts& counts = {}) const;
  // Of layer i, recomputed in the backward pass where the options say so.
  AttentionOutput layer(size_t i, const at::Tensor& x, const Batch& batch, const LossOptions& options) const;
};

namespace {

std::vector<std::pair<std::string, at::Tensor>> summed(
    const std::map<std::string, std::vector<at::Tensor>>& losses, bool averaged) {
  std::vector<std::pair<std::string, at::Tensor>> result;
  for (const auto& [name, values] : losses) {
    at::Tensor sum = values[0];
    for (size_t i = 1; i < values.size(); ++i) sum = sum + values[i];
    result.emplace_back(name, averaged ? sum / static_cast<double>(values.size()) : sum);
  }
  return result;
}

// A layer, and who watches it.
struct GuardedLayer {
  std::shared_ptr<DecoderLayer> layer;
  size_t number;
  UnitGuard* guard;

  AttentionOutput forward(const at::Tensor& x, const Batch& batch, at::ScalarType dtype) const {
    if (guard == nullptr) return layer->forward(x, batch, dtype);
    guard->enter(number, x);
    AttentionOutput out = layer->forward(x, batch, dtype);
    std::vector<at::Tensor> outputs{out.y};
    for (const auto& [name, value] : out.losses) outputs.push_back(value);
    guard->leave(number, outputs);
    return out;
  }
};

// The layer under activation checkpointing: its losses travel beside y as outputs.
AttentionOutput recomputed_layer(const GuardedLayer& layer, const at::Tensor& x, const Batch& batch,
                                 at::ScalarType dtype) {
  auto names = std::make_shared<std::vector<std::string>>();
  const auto forward = [layer, context = batch.context, dtype, names](const Tensors& inputs) {
    const Batch same{.positions = inputs[1], .cu_seqlens = inputs[2], .context = context};
    const AttentionOutput out = layer.forward(inputs[0], same, dtype);
    Tensors outputs{out.y};
    names->clear();
    for (const auto& [name, value] : out.losses) {
      names->push_back(name);
      outputs.push_back(value);
    }
    return outputs;
  };
  const Tensors outputs =
      recomputed(forward, {x, batch.positions, batch.cu_seqlens}, layer.layer->parameters());
  AttentionOutput result{outputs[0], {}};
  for (size_t i = 0; i < names->size(); ++i) result.losses.emplace_back((*names)[i], outputs[i + 1]);
  return result;
}

}  // namespace

AttentionOutput Transformer::Body::layer(size_t i, const at::Tensor& x, const Batch& batch,
                                         const LossOptions& options) const {
  const bool full = options.activation_checkpoint == "full";
  check<ConfigError>(full || options.activation_checkpoint == "none", "activation_checkpoint.mode = \"",
                     options.activation_checkpoint, "\": expected none or full");
  const GuardedLayer layer{layers.at(i), i, guard};
  const at::ScalarType dtype = compute_dtype(options);
  return full && at::GradMode::is_enabled() ? recomputed_layer(layer, x, batch, dtype)
                                            : layer.forward(x, batch, dtype);
}

Transformer::Body::Hidden Transformer::Body::run(const at::Tensor& tokens, const Batch& batch,
                                                 const LossOptions& options, const LossCounts& counts) const {
  expect_shape(tokens, "tokens", {-1, -1});
  expect_shape(batch.positions, "positions", {tokens.size(0), tokens.size(1)});
  at::Tensor x = embed(tokens, options);
  Hidden result;
  for (size_t i = 0; i < layers.size(); ++i) {
    const AttentionOutput out = layer(i, x, batch, options);
    x = out.y;
    if (out.losses.empty()) continue;
    const auto count = counts.empty() ? layers[i]->attention().loss_counts({batch}) : counts.at(i);
    for (const auto& [name, sum] : out.losses) {
      if (!count.contains(name))
        throw BrokenPromise(
            bug_report(text("layer ", i, ": loss_counts does not name its loss `", name, "`")));
      result.losses[name].push_back(sum / count.at(name));
    }
  }
  result.x = norm->forward(x, compute_dtype(options));
  return result;
}

Transformer::Transformer(const ModelConfig& config, uint64_t seed) : body_(std::make_shared<Body>()) {
  Body& body = *body_;
  body.config = config;
  const auto model = register_module("model", std::make_shared<torch::nn::Module>());
  body.embed_tokens = model->register_module(
      "embed_tokens",
      std::make_shared<Embedding>(config.vocab_size, config.hidden_size, config.initializer_range,
                                  derive_seed(seed, "embed_tokens")));
  const auto stack = model->register_module("layers", std::make_shared<torch::nn::Module>());
  const auto attention = attention_per_layer(config.attention, config.num_hidden_layers);
  std::shared_ptr<RotaryEmbedding> rotary;
  if (config.head_dim % 2 == 0)
    rotary = std::make_shared<RotaryEmbedding>(config.rope, config.head_dim, config.max_position_embeddings);
  for (int64_t i = 0; i < config.num_hidden_layers; ++i)
    body.layers.push_back(stack->register_module(
        std::to_string(i),
        std::make_shared<DecoderLayer>(config, attention[i], site_of(config, i, seed, rotary))));
  body.norm = model->register_module(
      "norm", std::make_shared<Norm>(config.norm, config.hidden_size, config.rms_norm_eps));
  if (!config.tie_word_embeddings)
    body.lm_head = register_module(
        "lm_head", std::make_shared<Linear>(config.hidden_size, config.vocab_size, config.initializer_range,
                                            derive_seed(seed, "lm_head")));
}

Transformer::~Transformer() = default;

const ModelConfig& Transformer::config() const { return body_->config; }

void Transformer::compute_in(at::ScalarType dtype) { body_->dtype = dtype; }

std::vector<std::shared_ptr<torch::nn::Module>> Transformer::units() const {
  return {body_->layers.begin(), body_->layers.end()};
}

at::Tensor Transformer::hidden(const at::Tensor& tokens, const Batch& batch, const LossOptions& options) {
  return body_->run(tokens, batch, options).x;
}

at::Tensor Transformer::logits(const at::Tensor& tokens, const Batch& batch) {
  return linear_map(body_->run(tokens, batch, {}).x, body_->head());
}

void Transformer::set_unit_guard(UnitGuard* guard) { body_->guard = guard; }

LossCounts Transformer::loss_counts(const std::vector<Batch>& step) const {
  LossCounts counts;
  for (const auto& layer : body_->layers) counts.push_back(layer->attention().loss_counts(step));
  return counts;
}

LossOutput Transformer::loss(const at::Tensor& tokens, const at::Tensor& labels, const Batch& batch,
                             const LossOptions& options, const LossCounts& counts) {
  expect_shape(labels, "labels", tokens.sizes());
  const Body::Hidden hidden = body_->run(tokens, batch, options, counts);
  const CrossEntropyOutput out =
      chunked_cross_entropy(hidden.x.reshape({-1, body_->config.hidden_size}), body_->head(),
                            labels.to(hidden.x.device()).reshape({-1}),
                            {.z_loss = options.z_loss, .chunk_tokens = options.chunk_tokens});
  return {out.loss_sum, out.nll.sum(at::kDouble), out.tokens, summed(hidden.losses, true)};
}

std::vector<std::pair<std::string, at::Tensor>> Transformer::mechanism_losses(const at::Tensor& tokens,
                                                                              const Batch& batch,
                                                                              const LossOptions& options,
                                                                              const LossCounts& counts) {
  return summed(body_->run(tokens, batch, options, counts).losses, false);
}

at::Tensor Transformer::token_nll(const at::Tensor& tokens, const at::Tensor& labels, const Batch& batch,
                                  const LossOptions& options) {
  const at::NoGradGuard no_grad;
  expect_shape(labels, "labels", tokens.sizes());
  const at::Tensor hidden = body_->run(tokens, batch, options).x.reshape({-1, body_->config.hidden_size});
  return chunked_cross_entropy(hidden, body_->head(), labels.to(hidden.device()).reshape({-1}),
                               {.chunk_tokens = options.chunk_tokens})
      .nll.view(tokens.sizes());
}

at::Tensor Transformer::embedded(const at::Tensor& tokens, const LossOptions& options) const {
  return body_->embed(tokens, options);
}

at::Tensor Transformer::layer(size_t i, const at::Tensor& x, const Batch& batch, const LossOptions& options) {
  return body_->layer(i, x, batch, options).y;
}

at::Tensor Transformer::attention(size_t i, const at::Tensor& x, const Batch& batch,
                                  const LossOptions& options) {
  UnitGuard* guard = body_->guard;
  if (guard != nullptr) guard->enter(i, x);
  at::Tensor attention = body_->layers.at(i)->attend(x, batch, body_->compute_dtype(options));
  if (guard != nullptr) guard->leave(i, {attention});
  return attention;
}

at::Tensor Transformer::after_attention(size_t i, const at::Tensor& x, const at::Tensor& attention,
                                        const LossOptions& options) {
  return body_->layers.at(i)->after_attention(x, attention, body_->compute_dtype(options));
}

at::Tensor Transformer::final_hidden(const at::Tensor& x, const LossOptions& options) const {
  return body_->norm->forward(x, body_->compute_dtype(options));
}

const at::Tensor& Transformer::output_weight() const { return body_->head(); }

int64_t ModelDecodeState::bytes() const {
  int64_t total = 0;
  for (const auto& layer : layers) total += layer->bytes();
  return total;
}

int64_t ModelDecodeState::tokens() const { return layers.empty() ? 0 : layers[0]->tokens(); }

ModelDecodeState Transformer::start_decoding(int64_t batch_size, int64_t max_tokens) const {
  expect_ability(body_->config.attention, Ability::decoding, "generation");
  ModelDecodeState state;
  for (const auto& layer : body_->layers)
    state.layers.push_back(layer->attention().start_decoding(batch_size, max_tokens));
  return state;
}

at::Tensor Transformer::decode(const at::Tensor& tokens, ModelDecodeState& state) {
  const at::NoGradGuard no_grad;
  expect_shape(tokens, "tokens", {-1, -1});
  check<ShapeError>(tokens.size(1) > 0, "tokens: decoding needs at least one token");
  at::Tensor x = body_->embed(tokens, {});
  const at::ScalarType dtype = body_->compute_dtype({});
  for (size_t i = 0; i < body_->layers.size(); ++i) x = body_->layers[i]->decode(x, *state.layers[i], dtype);
  // In float32: bfloat16 would make logits equal to each other.
  return linear_product(body_->norm->forward(x.select(1, -1), dtype), body_->head(), /*wide=*/true);
}

double Transformer::flops_per_token(int64_t seq_len) const {
  double forward = body_->head_flops();
  for (const auto& layer : body_->layers) forward += layer->flops(seq_len);
  return 3.0 * forward;  // backward: one product for the inputs, one for the weights
}

double Transformer::attention_flops_per_token(int64_t seq_len) const {
  double forward = 0;
  for (const auto& layer : body_->layers) forward += layer->attention().flops_per_token(seq_len);
  return forward;
}

Batch whole_rows(int64_t batch, int64_t tokens) {
  return {.positions = at::arange(tokens, at::kLong).unsqueeze(0).expand({batch, tokens})};
}

}  // namespace longreach
