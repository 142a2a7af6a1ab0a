// What every token source shares.
#include "data/corpora/token_source.h"

#include <algorithm>

#include "data/common/fingerprint.h"

namespace longreach::data {

void TokenSource::read_loss_mask(int64_t, std::span<uint8_t> out) const {
  std::fill(out.begin(), out.end(), 1);
}

std::string TokenSource::fingerprint() const {
  Hasher hasher;
  hasher.add(document_offsets());
  std::vector<Token> tokens;
  std::vector<uint8_t> mask;
  constexpr int64_t kBlock = 1 << 16;
  for (int64_t at = 0; at < num_tokens(); at += kBlock) {
    tokens.resize(static_cast<size_t>(std::min(kBlock, num_tokens() - at)));
    read(at, tokens);
    hasher.add(tokens);
    if (!has_loss_mask()) continue;
    mask.resize(tokens.size());
    read_loss_mask(at, mask);
    hasher.add(mask);
  }
  return hasher.hex();
}

std::optional<size_t> first_outside(std::span<const Token> tokens, int64_t vocab_size) {
  const auto wrong = [&](Token token) { return token < 0 || token >= vocab_size; };
  const auto found = std::find_if(tokens.begin(), tokens.end(), wrong);
  if (found == tokens.end()) return std::nullopt;
  return static_cast<size_t>(found - tokens.begin());
}

}  // namespace longreach::data
