// One JSON object of a Hugging Face folder, read key by key.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

namespace longreach {

// The object in a file. Throws ConfigError naming the file: it cannot be read, is no JSON object or larger
// than 16 MiB.
nlohmann::json hugging_face_json(const std::string& path);

// Typed access, with errors (ConfigError) that name file and key. Remembers which keys were asked for.
class HuggingFaceReader {
 public:
  // object: outlives the reader. prefix: of its keys in messages.
  HuggingFaceReader(std::string file, const nlohmann::json& object, std::string prefix = "")
      : file_(std::move(file)), object_(object), prefix_(std::move(prefix)) {}

  // Absent and null are alike.
  bool has(const char* key) const;
  bool present(const char* key) const { return object_.contains(key); }  // also as null
  // Leave the value as it is where the key is absent.
  void read(const char* key, int64_t& value, int64_t low, int64_t high) const;
  void read(const char* key, double& value) const;  // >= 0
  void read(const char* key, bool& value) const;
  void read(const char* key, std::string& value) const;
  void read(const char* key, std::vector<std::string>& value) const;
  void read(const char* key, std::vector<double>& value) const;  // > 0
  // A table, or an empty one.
  nlohmann::json table(const char* key) const;
  // Throws unless the key is absent or has this value: nothing else can be done here.
  void expect(const char* key, bool value) const;
  void expect(const char* key, double value) const;

  [[noreturn]] void fail(const std::string& key, const std::string& expected) const;
  // Throws naming the first key that nobody asked for and that is in neither set.
  void expect_all_known(const std::set<std::string>& without_effect,
                        const std::set<std::string>& ignored) const;

 private:
  const nlohmann::json& at(const char* key) const { return object_.at(key); }

  std::string file_;
  const nlohmann::json& object_;
  std::string prefix_;
  mutable std::set<std::string> known_;
};

}  // namespace longreach
