// SeerAttention: block-sparse attention whose blocks a small learned gate chooses. See README.md.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <memory>
#include <string>
#include <string_view>

#include "core/fields.h"
#include "layers/attention/common/taught_gates.h"
#include "layers/basic/layer_site.h"

namespace longreach::verify {
class Case;
}

namespace longreach {

class Attention;

// Keys are named, where the authors have one, after theirs.
struct SeerConfig {
  static constexpr std::string_view kind = "seer";
  static constexpr std::string_view family = "block-sparse";
  static constexpr std::string_view summary = "block-sparse attention through a distilled gate";
  static constexpr std::string_view source =
      "SeerAttention, arXiv 2410.13276 (prefill form); SeerAttention-R, arXiv 2506.08889 (decode form)";
  static constexpr std::array<std::string_view, 1> vectors{"seer"};
  static constexpr bool chooses_from_scores = true;

  static constexpr TaughtGate gate{
      .module = "attn_gate", .file = "attn_gate_weights.pth", .teaching = "mode = \"distill\""};

  std::string mode = "sparse";
  std::string form = "decode";
  int64_t block_size = 64;
  int64_t gate_hidden = 128;
  std::string q_pooling = "auto";
  std::string k_pooling = "Kmaxminavg";
  std::string layout = "auto";
  bool gate_qk_norm = true;
  bool gate_rope = true;
  std::string block_position = "start";

  std::string selection = "token_budget";
  int64_t token_budget = 4096;
  int64_t top_k = 64;
  double threshold = 5e-4;
  double density = 0.1;
  int64_t first_blocks = 0;
  bool force_diagonal = true;
  bool last_block_dense = true;

  bool gate_loss = true;
  double loss_slice_ratio = 0.5;
  bool rope = true;

  int64_t grain() const { return block_size; }
  bool decode_form() const { return form == "decode"; }
  bool teaches() const { return mode == "distill"; }
  std::string gate_config(const LayerSite& site) const;
  static SeerConfig of_gate_config(const std::string& options);
  void fields(FieldVisitor& visit);
  // Rules that span keys, and the sizes of the layer they must fit. Throws ConfigError naming the key.
  void validate(const LayerSite& site) const;
  // Cases of vector files that name one of `vectors`.
  static void verify(verify::Case& run);
};

std::shared_ptr<Attention> make_attention(const SeerConfig& config, const LayerSite& site);

}  // namespace longreach
