// Positioned reads, folders and durable writes over POSIX calls.
#include "data/common/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "core/error.h"

namespace longreach::data {
namespace fs = std::filesystem;

PositionedFile::PositionedFile(std::string path) : path_(std::move(path)) {
  fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  check<DataError>(fd_ >= 0, path_, ": cannot be opened: ", std::strerror(errno));
  struct stat status {};
  const bool regular = ::fstat(fd_, &status) == 0 && S_ISREG(status.st_mode);
  if (!regular) ::close(fd_);
  check<DataError>(regular, path_, ": is not a regular file");
  size_ = status.st_size;
}

PositionedFile::~PositionedFile() { ::close(fd_); }

void PositionedFile::read(int64_t offset, void* out, int64_t bytes) const {
  auto* to = static_cast<char*>(out);
  while (bytes > 0) {
    const ssize_t got = ::pread(fd_, to, static_cast<size_t>(bytes), offset);
    if (got < 0 && errno == EINTR) continue;
    check<DataError>(got >= 0, path_, ": cannot be read: ", std::strerror(errno));
    check<DataError>(got > 0, path_, ": ends before byte ", offset + bytes, "; it was cut short");
    to += got;
    offset += got;
    bytes -= got;
  }
}

std::vector<std::string> list_files(const std::string& path) {
  std::error_code error;
  const auto status = fs::status(path, error);
  check<DataError>(fs::exists(status), path, ": no such file or folder");
  if (!fs::is_directory(status)) return {path};
  std::vector<std::string> files;
  const auto options = fs::directory_options::follow_directory_symlink;
  for (fs::recursive_directory_iterator at(path, options, error), end; !error && at != end;
       at.increment(error)) {
    const bool hidden = at->path().filename().string().starts_with('.');
    std::error_code ignored;
    if (at->is_directory(ignored)) {
      if (hidden || at.depth() > 64) at.disable_recursion_pending();
    } else if (!hidden && at->is_regular_file(ignored)) {
      files.push_back(at->path().string());
    }
  }
  check<DataError>(!error, path, ": cannot be listed: ", error.message());
  std::sort(files.begin(), files.end());
  return files;
}

void sync_to_disk(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  check<DataError>(fd >= 0, path, ": cannot be opened: ", std::strerror(errno));
  const bool synced = ::fsync(fd) == 0 || errno == EINVAL;  // EINVAL: a file system without fsync for folders
  const int why = errno;
  ::close(fd);
  check<DataError>(synced, path, ": cannot be flushed to disk: ", std::strerror(why));
}

void write_atomically(const std::string& path, std::string_view contents) {
  const std::string temporary = path + ".tmp";
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  check<DataError>(fd >= 0, temporary, ": cannot be written: ", std::strerror(errno));
  const bool written =
      ::write(fd, contents.data(), contents.size()) == static_cast<ssize_t>(contents.size()) &&
      ::fsync(fd) == 0;
  const int why = errno;
  ::close(fd);
  check<DataError>(written, temporary, ": cannot be written: ", std::strerror(why));
  check<DataError>(::rename(temporary.c_str(), path.c_str()) == 0, path,
                   ": cannot be written: ", std::strerror(errno));
}

std::string user_cache_folder() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != '\0')
    return std::string(cache) + "/longreach";
  const char* home = std::getenv("HOME");
  check<DataError>(home != nullptr && *home != '\0',
                   "neither XDG_CACHE_HOME nor HOME is set: no place for cached data");
  return std::string(home) + "/.cache/longreach";
}

}  // namespace longreach::data
