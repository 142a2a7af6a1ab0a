#include "checkpoints/new_folder.h"

#include <unistd.h>

#include "checkpoints/checked_file.h"
#include "core/error.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;

fs::path made_parent(fs::path& target) {
  if (!target.has_filename()) target = target.parent_path();  // DIR/
  std::error_code error;
  fs::create_directories(target.parent_path(), error);
  check<CheckpointError>(!error, target.parent_path().string(), ": ", error.message());
  check<CheckpointError>(::access(target.parent_path().c_str(), W_OK) == 0, target.parent_path().string(),
                         ": cannot be written");
  return target.parent_path();
}

}  // namespace

NewFolder::NewFolder(const std::string& target)
    : target_(fs::absolute(target).lexically_normal()), parent_(made_parent(target_)), beside_(parent_) {
  std::error_code error;
  check<CheckpointError>(!fs::exists(target_, error) || fs::is_empty(target_, error), target,
                         ": exists and is not empty; expected a new folder");
  fs::create_directory(path());
}

void NewFolder::publish() const {
  sync_folder(path());
  std::error_code error;
  fs::rename(path(), target_, error);
  check<CheckpointError>(!error, target_.string(), ": cannot be written: ", error.message());
  sync_folder(parent_.string());
}

}  // namespace longreach
