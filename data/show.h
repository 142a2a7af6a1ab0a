// Documents of a token store as text for people: what is learnt, what is not, and where one document ends.
#pragma once
#include <cstdint>
#include <iosfwd>

#include "data/corpora/token_store.h"
#include "data/tokenizers/tokenizer.h"

namespace longreach::data {

struct ShowOptions {
  int64_t first = 0, documents = 1;  // which
  int64_t tokens = 512;              // of a document at most; 0: all
};

// A heading a document, then its text: lines that begin with `+` are labels, those with `-` are not (loss
// mask). `\n` ends the line as it does in the text, and a text that goes on without it goes on in the next
// line; a backslash, other control characters and what is no UTF-8 are written as escapes. The text is that
// of all tokens decoded together. Throws DataError when `tokenizer` is not the one that the store was made
// with, or `first` is no document of it.
void show_documents(const TokenStore& store, const Tokenizer& tokenizer, const ShowOptions& options,
                    std::ostream& out);

}  // namespace longreach::data
