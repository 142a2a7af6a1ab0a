// What every token source shares.
#include "data/token_source.h"

#include <algorithm>

namespace longreach::data {

void TokenSource::read_loss_mask(int64_t, std::span<uint8_t> out) const {
  std::fill(out.begin(), out.end(), 1);
}

std::optional<size_t> first_outside(std::span<const Token> tokens, int64_t vocab_size) {
  const auto wrong = [&](Token token) { return token < 0 || token >= vocab_size; };
  const auto found = std::find_if(tokens.begin(), tokens.end(), wrong);
  if (found == tokens.end()) return std::nullopt;
  return static_cast<size_t>(found - tokens.begin());
}

}  // namespace longreach::data
