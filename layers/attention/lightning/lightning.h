// Lightning attention: linear attention with a fixed exponential decay per head. See README.md.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <memory>
#include <string>
#include <string_view>

#include "core/fields.h"
#include "layers/basic/layer_site.h"
#include "layers/basic/projection.h"

namespace longreach::verify {
class Case;
}

namespace longreach {

class Attention;

struct LightningConfig {
  static constexpr std::string_view kind = "lightning";
  static constexpr std::string_view family = "linear";
  static constexpr std::string_view summary = "linear attention, fixed decay per head";
  static constexpr std::string_view source =
      "Qin et al., arXiv 2401.04658; TransNormerLLM, 2307.14995; MiniMax-01, 2501.08313; "
      "HypeNet, 2601.22156";
  static constexpr std::array<std::string_view, 1> vectors{"lightning"};
  static constexpr bool grouped_heads = false;  // every head has keys of its own
  std::string form = "transnormer";
  std::string decay = "auto";
  std::string scale = "auto";
  bool rope = true;
  std::string lrpe = "auto";
  int64_t chunk = 64;
  bool uses_lrpe(int64_t layer) const;
  bool turns() const { return rope && form == "hypenet"; }  // q and k have a rotary embedding
  double scale_of(int64_t head_dim) const;                  // of scores
  void fields(FieldVisitor& visit);
  // Throws ConfigError where LRPE makes keys too wide.
  void validate(const LayerSite& site) const;
  // Cases of vector files that name one of `vectors`.
  static void verify(verify::Case& run);
};

// Log decays [H] (float64, <= 0) of layer l of L, heads h = 0..H-1:
//   alibi    -ALiBi slope (1 - l/(L-1) + 1e-5); 1 + 1e-5 when L = 1 (TransNormerLLM's code and checkpoints)
//   paper    -(8/H) (1 - l/L) h (arXiv 2401.04658; flash-linear-attention)
//   minimax  -2^(-8(h+1)/H) (1 - l/(L-1+1e-5) + 1e-5), in float32 as transformers makes them
//   hypenet  -ALiBi slope, alike in every layer (HypeNet, MiniCPM-SALA)
//   none     0
// Throws ConfigError for another name.
at::Tensor lightning_log_decay(const std::string& decay, int64_t heads, int64_t layer, int64_t layers);

struct LightningWeights {
  Projection in_proj;  // transnormer: qkvu_proj [4 H D, C], rows q, k, v, u; minimax: qkv_proj [3 H D, C],
                       // rows q, k, v of head 0, of head 1, ...
  Projection q_proj, k_proj, v_proj;  // [H D, C], hypenet
  at::Tensor q_norm, k_norm;          // [D], hypenet
  Projection out_proj;                // [C, H D]
  Projection output_gate;             // [H D, C], minimax and hypenet (z_proj)
  at::Tensor norm;                    // [H D], minimax and hypenet (o_norm)
  at::Tensor theta;                   // [H, 1, D], LRPE; undefined: no positions
};

struct LightningOptions {
  std::string form = "transnormer";  // transnormer | minimax | hypenet
  at::Tensor log_decay;              // [H]
  double scale = 1.0;
  double norm_eps = 1e-5;                   // of hypenet's norms; the other forms have 1e-6
  std::shared_ptr<RotaryEmbedding> rotary;  // of hypenet's q and k; null: none
  int64_t chunk = 64;
  Implementation implementation = Implementation::fused;
};

struct LightningOutput {
  at::Tensor y;      // [B, T, C], dtype of x
  at::Tensor state;  // [N, H, Dk, D]: S after the last token of each sequence, not decayed further; Dk = 2 D
                     // with LRPE
};

// The whole layer as a function. x [B, T, C]; positions int64 [B, T] (LRPE and the rotary embedding read
// them); initial_state undefined or [N, H, Dk, D]; cu_seqlens as in Batch; length: as RotaryEmbedding::at has
// it. Differentiable in x, the weights and initial_state.
LightningOutput lightning_layer(const at::Tensor& x, const at::Tensor& positions,
                                const LightningWeights& weights, const LightningOptions& options,
                                const at::Tensor& initial_state = {}, const at::Tensor& cu_seqlens = {},
                                int64_t length = 0);

struct LightningAttentionOutput {
  at::Tensor o, state;
};

// The operator from its formula: o = scale [(q k^T) .* M] v, M_ij = exp(log_decay (i - j)) for j <= i. q, k
// [B, T, H, Dk], v [B, T, H, D] of any floating dtype. Memory T x T.
LightningAttentionOutput lightning_attention_reference(const at::Tensor& q, const at::Tensor& k,
                                                       const at::Tensor& v, const at::Tensor& log_decay,
                                                       double scale, const at::Tensor& initial_state = {},
                                                       const at::Tensor& cu_seqlens = {});

std::shared_ptr<Attention> make_attention(const LightningConfig& config, const LayerSite& site);

}  // namespace longreach
