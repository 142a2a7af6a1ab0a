// Sliding-window attention with attention sinks. See README.md.
#pragma once
#include <memory>
#include <string_view>

#include "core/fields.h"
#include "layers/layer_site.h"

namespace longreach {

class Attention;

struct SlidingConfig {
  static constexpr std::string_view kind = "sliding";
  static constexpr std::string_view source =
      "Longformer, arXiv 2004.05150; sinks: StreamingLLM, arXiv 2309.17453";
  int64_t window = 512;
  int64_t sinks = 0;
  bool rope = true;
  void fields(FieldVisitor& visit) {
    visit.field("window", window, {.help = "keys a query sees, itself included", .allowed = at_least(1)});
    visit.field("sinks", sinks,
                {.help = "first keys of the document that stay visible", .allowed = at_least(0)});
    visit.field("rope", rope, {.help = "rotary embedding on q and k, at the tokens' own positions"});
  }
};

std::shared_ptr<Attention> make_attention(const SlidingConfig& config, const LayerSite& site);

}  // namespace longreach
