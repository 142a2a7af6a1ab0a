// Asks the tokenizer: what it refuses to decode it does not know.
#include "data/tokenizers/known_ids.h"

#include "core/error.h"

namespace longreach::data {

std::vector<bool> known_ids(const Tokenizer& tokenizer) {
  std::vector<bool> known(static_cast<size_t>(tokenizer.vocab_size()));
  for (size_t i = 0; i < known.size(); ++i) {
    const auto id = static_cast<Token>(i);
    try {
      tokenizer.decode({&id, 1});
      known[i] = true;
    } catch (const DataError&) {
      known[i] = false;
    }
  }
  return known;
}

}  // namespace longreach::data
