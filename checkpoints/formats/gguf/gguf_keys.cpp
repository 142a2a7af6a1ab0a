#include "checkpoints/formats/gguf/gguf_keys.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "core/error.h"

namespace longreach {
namespace {

struct TypeInfo {
  const char* name;
  int64_t bytes;
};
constexpr std::array<TypeInfo, 13> kTypes = {{{"uint8", 1},
                                              {"int8", 1},
                                              {"uint16", 2},
                                              {"int16", 2},
                                              {"uint32", 4},
                                              {"int32", 4},
                                              {"float32", 4},
                                              {"bool", 1},
                                              {"string", 0},
                                              {"array", 0},
                                              {"uint64", 8},
                                              {"int64", 8},
                                              {"float64", 8}}};

template <class T>
T load(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// Nothing for types that are no integers and for what int64 does not hold.
std::optional<int64_t> integer_at(GgufType type, const char* from) {
  switch (type) {
    case GgufType::u8:
      return load<uint8_t>(from);
    case GgufType::i8:
      return load<int8_t>(from);
    case GgufType::u16:
      return load<uint16_t>(from);
    case GgufType::i16:
      return load<int16_t>(from);
    case GgufType::u32:
      return load<uint32_t>(from);
    case GgufType::i32:
      return load<int32_t>(from);
    case GgufType::i64:
      return load<int64_t>(from);
    case GgufType::u64: {
      const auto value = load<uint64_t>(from);
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

// The shortest decimal that has this float32: what was a decimal before it was stored (1e-5) is one again.
double decimal_of(float value) {
  std::array<char, 64> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  double decimal = value;
  std::from_chars(digits.data(), end, decimal);
  return decimal;
}

std::string_view string_at(const char*& from) {
  const auto length = load<uint64_t>(from);
  const std::string_view value(from + sizeof length, length);
  from = value.data() + length;
  return value;
}

std::string described(const GgufValue& value) {
  const char* type = gguf_type_name(value.type);
  if (value.is_array) return text("an array of ", value.count, " ", type);
  const char* from = value.bytes.data();
  if (value.type == GgufType::string) return text("\"", string_at(from), "\"");
  if (value.type == GgufType::f32) return text(load<float>(from));
  if (value.type == GgufType::f64) return text(load<double>(from));
  if (value.type == GgufType::boolean) return *from ? "true" : "false";
  if (const auto number = integer_at(value.type, from)) return text(*number);
  return text("a ", type);
}

}  // namespace

int64_t gguf_type_bytes(GgufType type) { return kTypes[static_cast<size_t>(type)].bytes; }
const char* gguf_type_name(GgufType type) { return kTypes[static_cast<size_t>(type)].name; }

void GgufKeys::fail(std::string_view key, std::string_view expected) const {
  const auto found = values_.find(key);
  const std::string what = found == values_.end() ? "nothing" : described(found->second).substr(0, 200);
  throw CheckpointError(
      one_line(longreach::text(path_, ": `", key, "`: found ", what, ", expected ", expected)));
}

const GgufValue& GgufKeys::get(std::string_view key, bool array, std::string_view expected) const {
  const auto found = values_.find(key);
  if (found == values_.end() || found->second.is_array != array) fail(key, expected);
  return found->second;
}

int64_t GgufKeys::integer(std::string_view key, int64_t low, int64_t high) const {
  const std::string expected = longreach::text("an integer from ", low, " to ", high);
  const GgufValue& value = get(key, false, expected);
  const std::optional<int64_t> number = integer_at(value.type, value.bytes.data());
  if (!number || *number < low || *number > high) fail(key, expected);
  return *number;
}

double GgufKeys::real(std::string_view key) const {
  constexpr std::string_view kExpected = "a finite number of type float32 or float64";
  const GgufValue& value = get(key, false, kExpected);
  if (value.type != GgufType::f32 && value.type != GgufType::f64) fail(key, kExpected);
  const double number = value.type == GgufType::f32 ? decimal_of(load<float>(value.bytes.data()))
                                                    : load<double>(value.bytes.data());
  if (!std::isfinite(number)) fail(key, kExpected);
  return number;
}

bool GgufKeys::boolean(std::string_view key) const {
  const GgufValue& value = get(key, false, "true or false");
  if (value.type != GgufType::boolean) fail(key, "true or false");
  return value.bytes[0] != 0;
}

std::string GgufKeys::text(std::string_view key) const {
  const GgufValue& value = get(key, false, "a string");
  if (value.type != GgufType::string) fail(key, "a string");
  const char* from = value.bytes.data();
  return std::string(string_at(from));
}

std::vector<std::string_view> GgufKeys::texts(std::string_view key) const {
  const GgufValue& value = get(key, true, "an array of strings");
  if (value.type != GgufType::string) fail(key, "an array of strings");
  std::vector<std::string_view> all(value.count);
  const char* from = value.bytes.data();
  for (std::string_view& one : all) one = string_at(from);
  return all;
}

std::vector<int64_t> GgufKeys::integers(std::string_view key) const {
  const GgufValue& value = get(key, true, "an array of integers");
  std::vector<int64_t> all(value.count);
  for (size_t i = 0; i < all.size(); ++i) {
    const char* from = value.bytes.data() + i * static_cast<size_t>(gguf_type_bytes(value.type));
    const std::optional<int64_t> number = integer_at(value.type, from);
    if (!number) fail(key, "an array of integers");
    all[i] = *number;
  }
  return all;
}

std::vector<float> GgufKeys::reals(std::string_view key) const {
  const GgufValue& value = get(key, true, "an array of float32");
  if (value.type != GgufType::f32) fail(key, "an array of float32");
  std::vector<float> all(value.count);
  if (!all.empty()) std::memcpy(all.data(), value.bytes.data(), value.bytes.size());
  return all;
}

}  // namespace longreach
