// What a GGUF file's `tokenizer.ggml.pre` stands for, in the words of a tokenizer.json.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace longreach {

struct GgufPreTokenizer {
  std::vector<std::string> names;  // the first is written
  nlohmann::json pre_tokenizer;
  bool nfc = false;            // the families of this name normalise first, of which a GGUF file says nothing
  bool ignore_merges = false;  // a word that is a token is taken whole
  bool add_bos = false;        // where the file does not say
};

const std::vector<GgufPreTokenizer>& gguf_pre_tokenizers();

// The one that does what a tokenizer.json says. Throws ConfigError naming `file` and the part of it that no
// name stands for.
const GgufPreTokenizer& gguf_pre_tokenizer_of(const nlohmann::json& tokenizer, const std::string& file);

}  // namespace longreach
