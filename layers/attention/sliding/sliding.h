// Sliding-window attention with attention sinks. See README.md.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <memory>
#include <string_view>

#include "core/fields.h"
#include "layers/basic/layer_site.h"

namespace longreach::verify {
class Case;
}

namespace longreach {

class Attention;

struct SlidingConfig {
  static constexpr std::string_view kind = "sliding";
  static constexpr std::string_view family = "softmax";
  static constexpr std::string_view summary = "a window and attention sinks";
  static constexpr std::string_view source =
      "Longformer, arXiv 2004.05150; sinks: StreamingLLM, arXiv 2309.17453";
  static constexpr std::array<std::string_view, 1> vectors{"sink_window"};
  int64_t window = 512;
  int64_t sinks = 0;
  bool rope = true;
  void fields(FieldVisitor& visit) {
    const int64_t most = int64_t{1} << 30;  // positions of keys are 32-bit
    visit.field("window", window,
                {.help = "keys a query sees, itself included", .allowed = between(1, most)});
    visit.field("sinks", sinks,
                {.help = "first keys of the document that stay visible", .allowed = between(0, most)});
    visit.field("rope", rope, {.help = "rotary embedding on q and k, at the tokens' own positions"});
  }
  // Cases of vector files that name one of `vectors`.
  static void verify(verify::Case& run);
};

// The plain formula: softmax over the keys j of the document with j <= i and (j > i - window or j < sinks).
// q [B, T, H, D], k and v [B, T, HK, D] of any floating dtype, cu_seqlens as in Batch -> [B, T, H, D]. Memory
// T x T.
at::Tensor sliding_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                       int64_t window, int64_t sinks, const at::Tensor& cu_seqlens = {});

std::shared_ptr<Attention> make_attention(const SlidingConfig& config, const LayerSite& site);

}  // namespace longreach
