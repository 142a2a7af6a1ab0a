// A Llama-like decoder whose layers each hold any attention mechanism: pre-norm, rotary, SwiGLU.
#pragma once
#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "distributed/unit_guard.h"
#include "layers/attention/attention.h"
#include "models/model_config.h"

namespace longreach {

// Per-layer decode states of one generation.
struct ModelDecodeState {
  std::vector<std::unique_ptr<DecodeState>> layers;
  int64_t bytes() const;
  int64_t tokens() const;
};

struct LossOptions {
  double z_loss = 0.0;                         // weight of mean lse^2 (PaLM, arXiv 2204.02311)
  int64_t chunk_tokens = 1024;                 // tokens whose logits exist at once
  std::string activation_checkpoint = "none";  // none | full: recompute each layer in backward
  bool autocast_bf16 = false;  // matmuls and attention in bfloat16, parameters and statistics in float32
};

// By what each layer's own losses are divided, by name: Transformer::loss_counts.
using LossCounts = std::vector<std::map<std::string, double>>;

// Sums over tokens, so that accumulation and ranks can normalise by one global count.
struct LossOutput {
  // scalar: sum of cross-entropy over labelled tokens (+ z-loss), differentiable, float32.
  at::Tensor loss_sum;
  at::Tensor nll_sum;  // scalar: cross-entropy alone, detached, float64
  int64_t tokens = 0;  // labelled tokens (label != -100)
  // Named losses of the mechanisms, over the step's counts, averaged over the layers that name them.
  std::vector<std::pair<std::string, at::Tensor>> auxiliary;
};

class Transformer : public torch::nn::Module {
 public:
  // config must be resolved. Parameters are float32 on the CPU, drawn from `seed` alone (the same whatever
  // the layer mix does to the order of drawing elsewhere).
  Transformer(const ModelConfig& config, uint64_t seed);
  ~Transformer() override;

  const ModelConfig& config() const;
  // What branches compute in where LossOptions do not say bfloat16; at first that is the embedding's dtype.
  void compute_in(at::ScalarType dtype);
  // Modules whose parameters are used together: the layers, in their order.
  std::vector<std::shared_ptr<torch::nn::Module>> units() const;
  // guard, which outlives the model's use or is taken back by null, sees each layer's passes.
  void set_unit_guard(UnitGuard* guard);

  // tokens int64 [B, T] -> final hidden states after the last norm [B, T, C].
  at::Tensor hidden(const at::Tensor& tokens, const Batch& batch, const LossOptions& options = {});
  // tokens int64 [B, T] -> logits [B, T, V]; for short inputs (tests, generation).
  at::Tensor logits(const at::Tensor& tokens, const Batch& batch);
  // What the mechanisms' losses of a step of these batches are divided by. With it, the losses of the
  // batches, and their gradients, sum to those of the step however it is cut.
  LossCounts loss_counts(const std::vector<Batch>& step) const;
  // labels int64 [B, T], already shifted, -100 where no loss is taken. Never holds [tokens, V] whole. counts:
  // of the step; empty: the batch is the step.
  LossOutput loss(const at::Tensor& tokens, const at::Tensor& labels, const Batch& batch,
                  const LossOptions& options = {}, const LossCounts& counts = {});
  // The mechanisms' own losses, each summed over the layers that name it; the output layer is not evaluated.
  std::vector<std::pair<std::string, at::Tensor>> mechanism_losses(const at::Tensor& tokens,
                                                                   const Batch& batch,
                                                                   const LossOptions& options = {},
                                                                   const LossCounts& counts = {});
  // Negative log-likelihood of each label, float32 [B, T], 0 where label is -100; no gradient.
  at::Tensor token_nll(const at::Tensor& tokens, const at::Tensor& labels, const Batch& batch,
                       const LossOptions& options = {});

  // Layer by layer, for who looks between layers (models/distillation.h). x [B, T, C]: the residual stream
  // before layer i.
  at::Tensor embedded(const at::Tensor& tokens, const LossOptions& options = {}) const;
  // The stream behind layer i.
  at::Tensor layer(size_t i, const at::Tensor& x, const Batch& batch, const LossOptions& options = {});
  // What the attention of layer i gives [B, T, C], before it joins the stream; then the stream behind the
  // layer.
  at::Tensor attention(size_t i, const at::Tensor& x, const Batch& batch, const LossOptions& options = {});
  at::Tensor after_attention(size_t i, const at::Tensor& x, const at::Tensor& attention,
                             const LossOptions& options = {});
  // The stream behind the last layer -> what hidden() gives, of which output_weight() [V, C] makes logits.
  at::Tensor final_hidden(const at::Tensor& x, const LossOptions& options = {}) const;
  const at::Tensor& output_weight() const;

  // Throws ConfigError when a layer's mechanism cannot decode.
  ModelDecodeState start_decoding(int64_t batch_size, int64_t max_tokens) const;
  // The next n tokens int64 [B, n] -> logits of the last of them [B, V]. No gradient.
  at::Tensor decode(const at::Tensor& tokens, ModelDecodeState& state);

  // Floating-point operations of forward + backward per token at sequence length T, counting what each
  // mechanism does.
  double flops_per_token(int64_t seq_len) const;
  // Of the forward passes of all attention alone.
  double attention_flops_per_token(int64_t seq_len) const;

 private:
  struct Body;
  std::shared_ptr<Body> body_;
};

// A whole row is one document: positions 0..T-1.
Batch whole_rows(int64_t batch, int64_t tokens);

}  // namespace longreach
