// A corpus as one stream of tokens with document bounds, whatever the file.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/tokenizers/tokenizer.h"

namespace longreach::data {

class TokenSource {
 public:
  virtual ~TokenSource() = default;
  virtual int64_t num_tokens() const = 0;
  // Offsets of the documents: 0 = first, ..., num_tokens(); at least two entries when there are tokens.
  virtual const std::vector<int64_t>& document_offsets() const = 0;
  // Tokens [begin, begin + out.size()). Throws DataError on a read failure. Safe to call from several
  // threads.
  virtual void read(int64_t begin, std::span<Token> out) const = 0;
  // Labels may be off for some tokens (prompts of fine-tuning data): fills 1 where a label is wanted.
  // Default: all. A source with a mask is packed by whole documents, so that no answer loses its prompt.
  virtual bool has_loss_mask() const { return false; }
  virtual void read_loss_mask(int64_t begin, std::span<uint8_t> out) const;
  virtual std::string name() const = 0;
  // Names tokens, document bounds and mask by their content: copies under any name and in any folder have the
  // same, in every process. A pass over everything where the source keeps no sums.
  virtual std::string fingerprint() const;
};

// Place of the first token that is not in [0, vocab_size); nothing when all are.
std::optional<size_t> first_outside(std::span<const Token> tokens, int64_t vocab_size);

}  // namespace longreach::data
