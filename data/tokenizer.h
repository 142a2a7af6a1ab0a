// Text to token ids and back.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace longreach::data {

using Token = int32_t;

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // Nothing is added; special tokens written in the text are recognised when `special` is true. Any bytes are
  // legal: invalid UTF-8 is kept byte for byte.
  virtual std::vector<Token> encode(std::string_view text, bool special = true) const = 0;
  // The exact bytes; decode(encode(x)) == x for byte-level tokenizers. Throws DataError for an id out of
  // range.
  virtual std::string decode(std::span<const Token> tokens) const = 0;
  virtual int64_t vocab_size() const = 0;  // highest id + 1
  virtual std::optional<Token> bos() const = 0;
  virtual std::optional<Token> eos() const = 0;
  virtual std::optional<Token> id_of(std::string_view token) const = 0;  // a token by its text ("<|im_end|>")
  virtual std::string name() const = 0;                                  // "bytes", "bpe", "unigram", ...
  virtual std::string fingerprint()
      const = 0;  // hash of vocabulary and rules: a store and a checkpoint carry it
};

// spec: "bytes"; a folder holding tokenizer.json or tokenizer.model; or one of those files.
// Throws DataError that names the file and what is supported.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& spec);

}  // namespace longreach::data
