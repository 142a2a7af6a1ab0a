#include "checkpoints/formats/gguf/gguf_key_writer.h"

namespace longreach {

void append_text(std::string& bytes, std::string_view value) {
  append_number<uint64_t>(bytes, value.size());
  bytes += value;
}

void GgufKeyWriter::begin(std::string_view key, GgufType type) {
  append_text(bytes_, key);
  append_number(bytes_, static_cast<uint32_t>(type));
  ++count_;
}

void GgufKeyWriter::begin_array(std::string_view key, GgufType type, size_t count) {
  begin(key, GgufType::array);
  append_number(bytes_, static_cast<uint32_t>(type));
  append_number<uint64_t>(bytes_, count);
}

void GgufKeyWriter::add_integer(std::string_view key, uint32_t value) {
  begin(key, GgufType::u32);
  append_number(bytes_, value);
}

void GgufKeyWriter::add_real(std::string_view key, double value) {
  begin(key, GgufType::f32);
  append_number(bytes_, static_cast<float>(value));
}

void GgufKeyWriter::add_flag(std::string_view key, bool value) {
  begin(key, GgufType::boolean);
  append_number<uint8_t>(bytes_, value ? 1 : 0);
}

void GgufKeyWriter::add_text(std::string_view key, std::string_view value) {
  begin(key, GgufType::string);
  append_text(bytes_, value);
}

void GgufKeyWriter::add_texts(std::string_view key, const std::vector<std::string>& values) {
  begin_array(key, GgufType::string, values.size());
  for (const std::string& value : values) append_text(bytes_, value);
}

void GgufKeyWriter::add_integers(std::string_view key, const std::vector<int32_t>& values) {
  begin_array(key, GgufType::i32, values.size());
  for (const int32_t value : values) append_number(bytes_, value);
}

void GgufKeyWriter::add_reals(std::string_view key, const std::vector<float>& values) {
  begin_array(key, GgufType::f32, values.size());
  for (const float value : values) append_number(bytes_, value);
}

}  // namespace longreach
