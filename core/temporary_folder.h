// A folder for intermediate files.
#pragma once
#include <filesystem>
#include <string>

namespace longreach {

// A new folder under `parent`, removed with everything in it when the object goes. Throws Error when it
// cannot be made.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::filesystem::path& parent = std::filesystem::temp_directory_path());
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  // The folder, or a file in it.
  std::string path(const std::string& name = "") const;
  // Writes a file and the folders above it; returns its path.
  std::string write(const std::string& name, const std::string& contents) const;

 private:
  std::filesystem::path folder_;
};

}  // namespace longreach
