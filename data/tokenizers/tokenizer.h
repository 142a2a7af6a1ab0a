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

// Where a text stands that is encoded in parts, so that no rule for the beginning of a text (a space put in
// front) and none for its end applies where one part goes on with another.
struct TextState {
  // apart: behind a token that was set by its id, where Hugging Face's tokenizers begin a section anew.
  enum class Place { start, inside, apart } place = Place::start;
  // SentencePiece: spaces that the text ended with, which count only when more text follows; whether it ended
  // with white space; and the score of the best path so far.
  int64_t held_spaces = 0;
  bool after_space = false;
  float score = 0;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // Nothing is added; special tokens written in the text are recognised when `special` is true. Any bytes are
  // legal: invalid UTF-8 is kept byte for byte.
  virtual std::vector<Token> encode(std::string_view text, bool special = true) const = 0;
  // The next part of a text, which goes on from `state` and leaves it behind the part. No token crosses the
  // border of two parts; otherwise the ids are those of the whole text.
  virtual std::vector<Token> encode_part(std::string_view text, bool special, TextState& state) const {
    state.place = TextState::Place::inside;
    return encode(text, special);
  }
  // Whether the white space before or behind a token belongs to it.
  struct Strip {
    bool left = false, right = false;
  };
  virtual Strip strip_of(Token) const { return {}; }
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
