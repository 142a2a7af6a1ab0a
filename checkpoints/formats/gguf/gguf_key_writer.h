// Keys of a GGUF file being written.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoints/formats/gguf/gguf_keys.h"

namespace longreach {

class GgufKeyWriter {
 public:
  void add_integer(std::string_view key, uint32_t value);
  void add_real(std::string_view key, double value);  // as float32
  void add_flag(std::string_view key, bool value);
  void add_text(std::string_view key, std::string_view value);
  void add_texts(std::string_view key, const std::vector<std::string>& values);
  void add_integers(std::string_view key, const std::vector<int32_t>& values);
  void add_reals(std::string_view key, const std::vector<float>& values);

  uint64_t count() const { return count_; }
  const std::string& bytes() const { return bytes_; }

 private:
  void begin(std::string_view key, GgufType type);
  void begin_array(std::string_view key, GgufType type, size_t count);

  uint64_t count_ = 0;
  std::string bytes_;
};

// A number as this machine has it, which is little-endian; a length and the text.
template <class T>
void append_number(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}
void append_text(std::string& bytes, std::string_view value);

}  // namespace longreach
