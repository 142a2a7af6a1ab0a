// Lightning attention: linear attention with a fixed exponential decay per head. See README.md.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <string_view>

#include "core/fields.h"
#include "layers/layer_site.h"

namespace longreach {

class Attention;

struct LightningConfig {
  static constexpr std::string_view kind = "lightning";
  static constexpr std::string_view source =
      "Qin et al., arXiv 2401.04658; TransNormerLLM, 2307.14995; MiniMax-01, 2501.08313";
  std::string form = "transnormer";
  std::string decay = "alibi";
  std::string lrpe = "auto";
  int64_t chunk = 64;
  void fields(FieldVisitor& visit) {
    visit.field("form", form,
                {.help = "layer around the operator: transnormer (qkvu, SRMSNorm, u gate) or minimax (qkv, "
                         "RMSNorm, sigmoid gate)",
                 .allowed = one_of({"transnormer", "minimax"})});
    visit.field(
        "decay", decay,
        {.help = "decay of head h in layer l: alibi (authors' code), paper (-8/H (1-l/L) h), minimax, none",
         .allowed = one_of({"alibi", "paper", "minimax", "none"})});
    visit.field("lrpe", lrpe,
                {.help = "LRPE positions on q and k: on, off, or auto (transnormer: every layer but the "
                         "first; minimax: off)",
                 .allowed = one_of({"auto", "on", "off"})});
    visit.field(
        "chunk", chunk,
        {.help = "tokens a chunk (16, 32, 64, 128); speed, not the result", .allowed = between(16, 128)});
  }
};

// Log decays [H] (float64, <= 0) of one layer: `decay` as in the config.
at::Tensor lightning_log_decay(const std::string& decay, int64_t heads, int64_t layer, int64_t layers);

std::shared_ptr<Attention> make_attention(const LightningConfig& config, const LayerSite& site);

}  // namespace longreach
