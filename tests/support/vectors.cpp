#include "tests/support/vectors.h"

#include <algorithm>
#include <filesystem>

#include "core/error.h"

namespace longreach::test {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> folders_of_vectors() {
  std::vector<fs::path> folders;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(LONGREACH_SOURCE_DIR) / "tests"))
    if (entry.is_directory() && entry.path().parent_path().filename() == "vectors")
      folders.push_back(entry.path());
  return folders;
}

}  // namespace

std::string vector_folder(const std::string& name) {
  for (const fs::path& folder : folders_of_vectors())
    if (folder.filename() == name) return folder.string();
  throw DataError("no folder tests/**/vectors/" + name);
}

std::string vector_path(const std::string& file) {
  const size_t slash = file.find('/');
  return vector_folder(file.substr(0, slash)) + file.substr(slash) + ".safetensors";
}

std::vector<std::string> vector_files(const std::string& name) {
  std::vector<std::string> files;
  for (const fs::path& folder : folders_of_vectors())
    if (name.empty() || folder.filename() == name)
      for (const auto& entry : fs::directory_iterator(folder))
        if (entry.path().extension() == ".safetensors") files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace longreach::test
