// Token texts and ids.
#include "data/tokenizers/vocabulary.h"

#include <cctype>
#include <cstdlib>

#include "core/error.h"

namespace longreach::data {

void Vocabulary::add(std::string_view token, int64_t id, int64_t limit) {
  check<DataError>(id >= 0 && id < limit, "token `", one_line(token, 100), "` has id ", id,
                   ", allowed are 0 to ", limit - 1);
  if (const std::optional<Token> known = find(token)) {
    check<DataError>(*known == id, "token `", one_line(token, 100), "` has two ids, ", *known, " and ", id);
    return;
  }
  if (id >= size()) texts_.resize(static_cast<size_t>(id) + 1, nullptr);
  check<DataError>(texts_[id] == nullptr, "tokens `", texts_[id] ? one_line(*texts_[id], 100) : "", "` and `",
                   one_line(token, 100), "` have the same id ", id);
  texts_[id] = &storage_.emplace_back(token);
  ids_.emplace(*texts_[id], static_cast<Token>(id));
}

std::optional<Token> Vocabulary::find(std::string_view token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

std::string byte_token_name(unsigned char byte) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  return std::string("<0x") + kDigits[byte >> 4] + kDigits[byte & 15] + ">";
}

std::optional<unsigned char> byte_of_token_name(std::string_view name) {
  if (name.size() != 6 || !name.starts_with("<0x") || name[5] != '>') return std::nullopt;
  if (!std::isxdigit(static_cast<unsigned char>(name[3])) ||
      !std::isxdigit(static_cast<unsigned char>(name[4])))
    return std::nullopt;
  return static_cast<unsigned char>(std::strtol(std::string(name.substr(3, 2)).c_str(), nullptr, 16));
}

}  // namespace longreach::data
