#include "checkpoints/formats/hugging_face_json.h"

#include <filesystem>
#include <fstream>

#include "core/error.h"

namespace longreach {

using Json = nlohmann::json;

Json hugging_face_json(const std::string& path) {
  constexpr uintmax_t kLargestFile = 16 << 20;
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  check<ConfigError>(!error, one_line(path), ": cannot be read (", error.message(), ")");
  check<ConfigError>(size <= kLargestFile, one_line(path), ": ", size, " bytes are too many; at most ",
                     kLargestFile);
  std::ifstream in(path, std::ios::binary);
  check<ConfigError>(in.good(), one_line(path), ": cannot be read");
  Json root;
  try {
    root = Json::parse(in);
  } catch (const Json::exception& failure) {
    throw ConfigError(one_line(text(path, ": is not JSON (", failure.what(), ")")));
  }
  check<ConfigError>(root.is_object(), one_line(path), ": expected a JSON object");
  return root;
}

bool HuggingFaceReader::has(const char* key) const {
  known_.insert(key);
  return object_.contains(key) && !object_.at(key).is_null();
}

void HuggingFaceReader::read(const char* key, int64_t& value, int64_t low, int64_t high) const {
  if (!has(key)) return;
  const Json& node = at(key);
  const bool fits = node.is_number_unsigned() ? node.get<uint64_t>() <= static_cast<uint64_t>(high)
                                              : node.is_number_integer();
  if (!fits || node.get<int64_t>() < low || node.get<int64_t>() > high)
    fail(key, text("expected an integer from ", low, " to ", high));
  value = node.get<int64_t>();
}

void HuggingFaceReader::read(const char* key, double& value) const {
  if (!has(key)) return;
  if (!at(key).is_number() || at(key).get<double>() < 0.0) fail(key, "expected a number >= 0");
  value = at(key).get<double>();
}

void HuggingFaceReader::read(const char* key, bool& value) const {
  if (!has(key)) return;
  if (!at(key).is_boolean()) fail(key, "expected true or false");
  value = at(key).get<bool>();
}

void HuggingFaceReader::read(const char* key, std::string& value) const {
  if (!has(key)) return;
  if (!at(key).is_string()) fail(key, "expected a string");
  value = at(key).get<std::string>();
}

void HuggingFaceReader::read(const char* key, std::vector<std::string>& value) const {
  if (!has(key)) return;
  const Json& node = at(key);
  if (!node.is_array()) fail(key, "expected a list of strings");
  value.clear();
  for (const Json& item : node) {
    if (!item.is_string()) fail(key, "expected a list of strings");
    value.push_back(item.get<std::string>());
  }
}

void HuggingFaceReader::read(const char* key, std::vector<double>& value) const {
  if (!has(key)) return;
  const Json& node = at(key);
  if (!node.is_array()) fail(key, "expected a list of numbers");
  value.clear();
  for (const Json& item : node) {
    if (!item.is_number() || !(item.get<double>() > 0.0)) fail(key, "expected a list of numbers > 0");
    value.push_back(item.get<double>());
  }
}

Json HuggingFaceReader::table(const char* key) const {
  if (!has(key)) return Json::object();
  if (!at(key).is_object()) fail(key, "expected a table");
  return at(key);
}

void HuggingFaceReader::expect(const char* key, bool value) const {
  bool found = value;
  read(key, found);
  if (found != value) fail(key, value ? "expected true" : "expected false");
}

void HuggingFaceReader::expect(const char* key, double value) const {
  double found = value;
  read(key, found);
  if (found != value) fail(key, text("expected ", value));
}

void HuggingFaceReader::fail(const std::string& key, const std::string& expected) const {
  std::string found = "nothing";
  if (object_.contains(key) && !object_.at(key).is_null()) {
    const Json& node = object_.at(key);  // nesting of any depth is not printed
    found =
        node.is_structured() ? node.type_name() : node.dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  throw ConfigError(
      one_line(text(file_, ": `", prefix_, key, "`: found ", found.substr(0, 200), ", ", expected)));
}

void HuggingFaceReader::expect_all_known(const std::set<std::string>& without_effect,
                                         const std::set<std::string>& ignored) const {
  for (const auto& item : object_.items()) {
    const std::string& key = item.key();
    if (known_.count(key) > 0 || without_effect.count(key) > 0 || ignored.count(prefix_ + key) > 0) continue;
    throw ConfigError(
        one_line(text(file_, ": `", prefix_, key.substr(0, 200), "`: is not understood; `--ignore ", prefix_,
                      key.substr(0, 200), "` where it has no effect on what the model computes")));
  }
}

}  // namespace longreach
