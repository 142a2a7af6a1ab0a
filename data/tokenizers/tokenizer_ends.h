// What transformers puts before and behind every text that it tokenizes.
#pragma once
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "data/tokenizers/tokenizer.h"

namespace longreach::data {

struct TokenizerEnds {
  bool bos = false, eos = false;
};

// By add_bos_token and add_eos_token of tokenizer_config.json, and where it does not give them by the
// post_processor of tokenizer.json; SentencePiece without a tokenizer.json (an empty object) puts bos. Throws
// nlohmann::json::exception where a value is of the wrong type.
TokenizerEnds tokenizer_ends(const nlohmann::json& tokenizer_config, const nlohmann::json& tokenizer);

// The token that is put before every text, by the files of the tokenizer: name -> contents, of which
// tokenizer_config.json and tokenizer.json count. where: their place. Throws DataError naming it.
std::optional<Token> bos_before_texts(const Tokenizer& tokenizer,
                                      const std::map<std::string, std::string>& files,
                                      const std::string& where);
// The same; spec: where it was loaded from, as load_tokenizer takes it.
std::optional<Token> bos_before_texts(const Tokenizer& tokenizer, const std::string& spec);

}  // namespace longreach::data
