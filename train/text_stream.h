// The text of tokens that come one by one, as the decoding of all of them gives it.
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizers/tokenizer.h"

namespace longreach {

// How a token reads depends on those before it (the first piece of a text loses its space, a character has
// several bytes), so the whole is decoded each time and what has grown is handed on. Held back until it is
// certain: half a character, U+FFFD at the end (what a decoder may make of half a character), and what may be
// the beginning of a text that ends generation.
class TextStream {
 public:
  using Sink = std::function<void(std::string_view)>;

  // stops: texts, none empty, that end the text before themselves; they are sought behind the prompt. `sink`
  // gets the text, the prompt's included, piece by piece.
  TextStream(const data::Tokenizer& tokenizer, std::vector<data::Token> prompt,
             std::vector<std::string> stops, Sink sink);

  // False when one of `stops` is complete: no more tokens are wanted.
  bool add(data::Token token);
  // Hands on what is still held back.
  void finish();
  // Everything handed on.
  const std::string& text() const { return written_; }

 private:
  void write_up_to(size_t end);
  size_t certain() const;  // bytes of whole_ that later tokens cannot change

  const data::Tokenizer& tokenizer_;
  std::vector<data::Token> tokens_;
  std::vector<std::string> stops_;
  Sink sink_;
  std::string whole_, written_;
  size_t begin_ = 0;  // of the generated part
};

}  // namespace longreach
