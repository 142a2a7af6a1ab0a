// Short names for contents: a vocabulary and its rules, the tokens of a corpus.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct XXH3_state_s;

namespace longreach::data {

// XXH3-64 as 16 hexadecimal digits.
std::string hash_hex(std::string_view bytes);

// The same of what is added piece by piece.
class Hasher {
 public:
  Hasher();
  void add(const void* data, size_t bytes);
  template <class T>
  void add(const std::vector<T>& values) {
    add(values.data(), values.size() * sizeof(T));
  }
  uint64_t value() const;
  std::string hex() const;

 private:
  std::unique_ptr<XXH3_state_s, void (*)(XXH3_state_s*)> state_;
};

}  // namespace longreach::data
