// Token texts and ids, both ways, and the names of byte tokens.
#pragma once
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/tokenizers/tokenizer.h"

namespace longreach::data {

class Vocabulary {
 public:
  Vocabulary() = default;
  Vocabulary(Vocabulary&&) = default;  // the index points into the storage: to be moved, not copied
  Vocabulary& operator=(Vocabulary&&) = default;

  // `limit`: ids must lie in [0, limit), so that no file can ask for more memory than its size warrants.
  // Throws DataError for an id out of range or taken by another text, and for a text that has another id
  // already.
  void add(std::string_view text, int64_t id, int64_t limit);

  std::optional<Token> find(std::string_view text) const;
  bool contains(Token id) const { return id >= 0 && id < size() && texts_[id] != nullptr; }
  std::string_view text(Token id) const { return *texts_[id]; }         // of an id it contains
  int64_t size() const { return static_cast<int64_t>(texts_.size()); }  // highest id + 1

 private:
  std::deque<std::string> storage_;  // never moves its strings
  std::vector<const std::string*> texts_;
  std::unordered_map<std::string_view, Token> ids_;
};

// "<0x0A>" for 10.
std::string byte_token_name(unsigned char byte);

// The byte of "<0x0A>", or nothing.
std::optional<unsigned char> byte_of_token_name(std::string_view name);

}  // namespace longreach::data
