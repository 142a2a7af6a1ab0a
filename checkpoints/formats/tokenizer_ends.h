// What transformers puts before and behind every text that it tokenizes.
#pragma once
#include <nlohmann/json_fwd.hpp>

namespace longreach {

struct TokenizerEnds {
  bool bos = false, eos = false;
};

// By add_bos_token and add_eos_token of tokenizer_config.json, and where it does not give them by the
// post_processor of tokenizer.json; SentencePiece without a tokenizer.json (an empty object) puts bos. Throws
// nlohmann::json::exception where a value is of the wrong type.
TokenizerEnds tokenizer_ends(const nlohmann::json& tokenizer_config, const nlohmann::json& tokenizer);

}  // namespace longreach
