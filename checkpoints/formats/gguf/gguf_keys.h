// The keys of a GGUF file: typed values, which stay in the mapped file until they are asked for.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace longreach {

enum class GgufType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

// Bytes of a value in the file; 0 for string and array, which have their length with them.
int64_t gguf_type_bytes(GgufType type);
const char* gguf_type_name(GgufType type);

struct GgufValue {
  GgufType type = GgufType::u8;  // of an array: of its elements
  bool is_array = false;
  uint64_t count = 1;
  std::string_view bytes;  // the elements as they lie in the file
};

// Every method throws CheckpointError naming file and key: one that is absent, of another type, out of range.
class GgufKeys {
 public:
  explicit GgufKeys(std::string path) : path_(std::move(path)) {}

  // The value must have been checked: its elements fit its bytes. False when the key is there already.
  bool add(std::string key, const GgufValue& value) { return values_.emplace(std::move(key), value).second; }

  const std::string& path() const { return path_; }
  const std::map<std::string, GgufValue, std::less<>>& values() const { return values_; }
  bool has(std::string_view key) const { return values_.find(key) != values_.end(); }

  int64_t integer(std::string_view key, int64_t low, int64_t high) const;
  // Finite; of a float32 its shortest decimal.
  double real(std::string_view key) const;
  bool boolean(std::string_view key) const;
  std::string text(std::string_view key) const;
  // Of arrays. The views live as long as the file is mapped.
  std::vector<std::string_view> texts(std::string_view key) const;
  std::vector<int64_t> integers(std::string_view key) const;
  std::vector<float> reals(std::string_view key) const;

  [[noreturn]] void fail(std::string_view key, std::string_view expected) const;

 private:
  const GgufValue& get(std::string_view key, bool array, std::string_view expected) const;

  std::string path_;
  std::map<std::string, GgufValue, std::less<>> values_;
};

}  // namespace longreach
