// Where a mechanism is built: what a model tells the attention of one layer.
#pragma once
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/fields.h"
#include "layers/ops/common/implementation.h"

namespace longreach {

class RotaryEmbedding;

// Rotary embedding and its scalings, with Hugging Face's names (config.json: rope_theta, rope_scaling).
struct RopeConfig {
  double theta = 10000.0;
  std::string rope_type = "default";  // default (none), linear, dynamic (NTK), yarn, llama3, longrope
  double factor = 1.0;
  int64_t original_max_position_embeddings = 0;          // 0: max_position_embeddings of the model
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
  double beta_fast = 32.0, beta_slow = 1.0;              // yarn
  double attention_factor = 0.0;                         // yarn, longrope; 0: computed
  bool truncate = true;                                  // yarn: the ramp's ends are whole feature pairs
  // longrope: what each feature pair's wavelength is multiplied by, in sequences up to the original length
  // and in longer ones.
  std::vector<double> short_factor, long_factor;
};

struct LayerSite {
  int64_t hidden_size = 0;
  int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
  int64_t layer = 0, num_layers = 1;
  int64_t max_position_embeddings = 0;
  double norm_eps = 1e-5;
  double initializer_range = 0.02;
  bool qk_norm = false;                // RMSNorm over head_dim on q and k before the rotary embedding (Qwen3)
  bool attention_bias = false;         // biases on q, k, v projections (Qwen2)
  bool attention_output_bias = false;  // a bias on the projection of their outputs (Llama's attention_bias)
  RopeConfig rope;
  // Shared by the layers of a model; null: the mechanism makes its own.
  std::shared_ptr<RotaryEmbedding> rotary;
  uint64_t seed = 0;  // of this layer's initial parameters
  Implementation implementation = Implementation::fused;

  // Standard deviation of projections that write into the residual stream: their sum over 2 L of them keeps
  // the variance of one (GPT-2, section 2.3 of its paper).
  double residual_std() const { return initializer_range / std::sqrt(2.0 * static_cast<double>(num_layers)); }
};

}  // namespace longreach
