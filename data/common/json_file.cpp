// JSON with errors in one line.
#include "data/common/json_file.h"

#include <filesystem>
#include <fstream>
#include <system_error>

#include "core/error.h"

namespace longreach::data {
namespace {

using nlohmann::json;
constexpr int kMaxDepth = 64;

const json* find(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

[[noreturn]] void wrong_type(const std::string& where, const char* key, const char* wanted,
                             const json* found) {
  throw DataError(
      text(where, ".", key, " must be ", wanted, ", found ", found ? found->type_name() : "nothing"));
}

}  // namespace

std::string read_whole_file(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  check<DataError>(std::filesystem::exists(status), path, ": no such file");
  check<DataError>(std::filesystem::is_regular_file(status), path, ": not a regular file");
  std::ifstream file(path, std::ios::binary);
  check<DataError>(file.good(), path, ": cannot be opened for reading");
  std::string content(std::filesystem::file_size(path, error), '\0');
  check<DataError>(!error, path, ": its size cannot be read");
  file.read(content.data(), static_cast<std::streamsize>(content.size()));
  check<DataError>(file.gcount() == static_cast<std::streamsize>(content.size()), path, ": cannot be read");
  return content;
}

std::string json_fault(std::string_view content, const json::exception& error) {
  using namespace std::string_view_literals;
  const bool marked = content.starts_with("\xFF\xFE"sv) || content.starts_with("\xFE\xFF"sv);
  const std::string_view head = content.substr(0, 4);
  if (marked || (head.size() > 1 && head.find('\0') != std::string_view::npos))
    return "it is UTF-16 or UTF-32 text, expected UTF-8 (`iconv -f UTF-16 -t UTF-8` writes it)";
  std::string what = error.what();
  if (const size_t tag = what.find("] "); what.starts_with('[') && tag != std::string::npos)
    what.erase(0, tag + 2);
  if (what.find("ill-formed UTF-8") != std::string::npos) return "it is not UTF-8: " + what;
  if (what.find("surrogate") != std::string::npos) return "it has a lone surrogate: " + what;
  const size_t read = what.find("last read: ");
  const std::string_view last = read == std::string::npos ? ""sv : std::string_view(what).substr(read);
  if (what.find("invalid literal") != std::string::npos &&
      (last.ends_with("N'") || last.ends_with("Na'") || last.ends_with("I'") || last.ends_with("-I'")))
    return "NaN and Infinity are no JSON numbers: " + what;
  return what;
}

json parse_json(const std::string& content) {
  const auto limit_depth = [](int depth, json::parse_event_t event, json&) {
    const bool opens =
        event == json::parse_event_t::object_start || event == json::parse_event_t::array_start;
    check<DataError>(!opens || depth < kMaxDepth, "JSON nested deeper than ", kMaxDepth, " levels");
    return true;
  };
  try {
    return json::parse(content, limit_depth);
  } catch (const json::exception& error) {
    throw DataError(one_line(text("not valid JSON: ", json_fault(content, error)), 300));
  }
}

bool get_bool(const json& object, const char* key, bool fallback, const std::string& where) {
  const json* value = find(object, key);
  if (!value) return fallback;
  if (!value->is_boolean()) wrong_type(where, key, "true or false", value);
  return value->get<bool>();
}

std::string get_string(const json& object, const char* key, const std::string& fallback,
                       const std::string& where) {
  const json* value = find(object, key);
  if (!value) return fallback;
  if (!value->is_string()) wrong_type(where, key, "a string", value);
  return value->get<std::string>();
}

int64_t get_integer(const json& object, const char* key, int64_t fallback, const std::string& where) {
  const json* value = find(object, key);
  if (!value) return fallback;
  // Anything beyond int64, a fraction included, is out of every range that matters here.
  const bool fits =
      value->is_number_integer() && !(value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX);
  if (!fits) wrong_type(where, key, "an integer", value);
  return value->get<int64_t>();
}

const json& get_object(const json& object, const char* key, const std::string& where) {
  const json* value = find(object, key);
  if (!value || !value->is_object()) wrong_type(where, key, "an object", value);
  return *value;
}

const json& get_array(const json& object, const char* key, const std::string& where) {
  const json* value = find(object, key);
  if (!value || !value->is_array()) wrong_type(where, key, "an array", value);
  return *value;
}

}  // namespace longreach::data
