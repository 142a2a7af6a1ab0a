#include "checkpoints/formats/tokenizer_ends.h"

#include <nlohmann/json.hpp>

namespace longreach {
namespace {

using nlohmann::json;

// Whether a post_processor puts a token before (or behind) every text.
bool adds_token(const json& processor, bool before) {
  if (!processor.is_object()) return false;
  for (const json& member : processor.value("processors", json::array()))
    if (adds_token(member, before)) return true;
  const json single = processor.value("single", json::array());
  return !single.empty() && (before ? single.front() : single.back()).contains("SpecialToken");
}

}  // namespace

TokenizerEnds tokenizer_ends(const json& tokenizer_config, const json& tokenizer) {
  const json processor = tokenizer.value("post_processor", json());
  return {.bos = tokenizer_config.value("add_bos_token", tokenizer.empty() || adds_token(processor, true)),
          .eos = tokenizer_config.value("add_eos_token", adds_token(processor, false))};
}

}  // namespace longreach
