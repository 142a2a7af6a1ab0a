#include "core/exec_words.h"

#include <filesystem>

#include "core/error.h"

extern char** environ;

namespace longreach {

std::vector<std::string> environment_with(const std::vector<std::pair<std::string, std::string>>& additions) {
  std::vector<std::string> merged;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view one = *entry;
    bool replaced = false;
    for (const auto& [name, value] : additions) replaced = replaced || one.starts_with(name + "=");
    if (!replaced) merged.emplace_back(one);
  }
  for (const auto& [name, value] : additions) merged.push_back(name + "=" + value);
  return merged;
}

std::vector<char*> exec_pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

std::string this_program() {
  std::error_code failure;
  const auto path = std::filesystem::read_symlink("/proc/self/exe", failure);
  check<Error>(!failure, "/proc/self/exe: ", failure.message());
  return path.string();
}

}  // namespace longreach
