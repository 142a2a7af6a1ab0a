// Locks between processes, for folders and files that one process at a time may write.
#pragma once
#include <sys/types.h>

#include <string>

namespace longreach {

// An exclusive lock on the file `path`, which is made for it, says who holds it, and is removed with the
// object. The system releases it when the process ends, however it ends; started and forked processes do not
// hold it. Where the file system has no locks, the first object says so on standard error, and all go on
// without. Throws UserError when the file cannot be made.
class FileLock {
 public:
  // Waits until nobody else holds it; after a second says on standard error for whom.
  static FileLock wait(const std::string& path);
  // Throws UserError "WHAT: in use by process 4711 on host NAME" when somebody else holds it.
  static FileLock take(const std::string& path, const std::string& what);

  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&&) = delete;
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  ~FileLock();

 private:
  FileLock(std::string path, int descriptor);

  std::string path_;
  int descriptor_;
  pid_t owner_;  // a forked process must not remove the file
};

}  // namespace longreach
