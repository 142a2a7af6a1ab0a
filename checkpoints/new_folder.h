// A folder that appears whole or not at all.
#pragma once
#include <filesystem>
#include <string>

#include "core/temporary_folder.h"

namespace longreach {

// It is written beside its place and moved there when it is whole and on the disk. What stands there already
// stays.
class NewFolder {
 public:
  // Throws CheckpointError when `target` exists and is not empty, or cannot be written.
  explicit NewFolder(const std::string& target);

  // Where to write what it is to hold.
  std::string path() const { return beside_.path("export"); }
  // Throws CheckpointError. Files in it were flushed by whoever wrote them.
  void publish() const;

 private:
  std::filesystem::path target_, parent_;
  TemporaryFolder beside_;
};

}  // namespace longreach
