// Checked writing and whole-file reading with plain POSIX calls.
#include "checkpoints/checked_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <system_error>
#include <vector>

#include "core/error.h"

namespace longreach {
namespace {

struct HashFree {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

[[noreturn]] void fail(const std::string& path, std::string_view what, int error) {
  throw CheckpointError(one_line(text(path, ": ", what, ": ", system_reason(error))));
}

// A write past RLIMIT_FSIZE raises SIGXFSZ, whose default ends the process; ignored, the write fails with
// EFBIG and becomes an error like any other. A handler that somebody installed stays.
void fail_rather_than_die_on_file_limit() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction current {};
    if (sigaction(SIGXFSZ, nullptr, &current) == 0 && current.sa_handler == SIG_DFL)
      std::signal(SIGXFSZ, SIG_IGN);
  });
}

// An open file for reading, closed on every path.
class ReadFile {
 public:
  explicit ReadFile(const std::string& path) : path_(path) {
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor_ < 0) fail(path, "cannot be opened", errno);
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
      ::close(descriptor_);
      throw CheckpointError(one_line(text(path, ": is not a regular file")));
    }
    size_ = status.st_size;
  }
  ~ReadFile() { ::close(descriptor_); }
  ReadFile(const ReadFile&) = delete;
  ReadFile& operator=(const ReadFile&) = delete;

  int64_t size() const { return size_; }
  // Bytes read, 0 at the end.
  size_t read(char* to, size_t bytes) {
    for (;;) {
      const ssize_t got = ::read(descriptor_, to, bytes);
      if (got >= 0) return static_cast<size_t>(got);
      if (errno != EINTR) fail(path_, "cannot be read", errno);
    }
  }

 private:
  const std::string path_;
  int descriptor_ = -1;
  int64_t size_ = 0;
};

}  // namespace

struct CheckedFile::Hash {
  std::unique_ptr<XXH3_state_t, HashFree> state{XXH3_createState()};
};

CheckedFile::CheckedFile(const std::string& path) : path_(path), hash_(std::make_unique<Hash>()) {
  fail_rather_than_die_on_file_limit();
  XXH3_64bits_reset(hash_->state.get());
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail(path, "cannot be written", errno);
  struct stat status {};
  if (::fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode)) return;
  ::close(descriptor_);  // a device or a pipe, which must not be removed when something fails
  throw CheckpointError(one_line(text(path, ": is not a regular file")));
}

CheckedFile::~CheckedFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(path_.c_str());
}

void CheckedFile::write(const void* data, size_t bytes) {
  constexpr size_t kPiece = size_t{1} << 24;  // hash a piece while it is in cache
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(descriptor_, from, std::min(bytes, kPiece));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail(path_, text("writing failed after ", sum_.size, " bytes"), errno);
    if (written == 0) fail(path_, text("writing failed after ", sum_.size, " bytes"), ENOSPC);
    XXH3_64bits_update(hash_->state.get(), from, static_cast<size_t>(written));
    sum_.size += written;
    from += written;
    bytes -= static_cast<size_t>(written);
  }
}

FileSum CheckedFile::finish() {
  if (::fsync(descriptor_) != 0) fail(path_, "cannot be flushed to the device", errno);
  const int descriptor = descriptor_;
  descriptor_ = -1;
  if (::close(descriptor) != 0) {
    const int error = errno;
    ::unlink(path_.c_str());
    fail(path_, "cannot be closed", error);
  }
  sum_.xxh3 = XXH3_64bits_digest(hash_->state.get());
  return sum_;
}

FileSum sum_of_file(const std::string& path) {
  ReadFile file(path);
  const std::unique_ptr<XXH3_state_t, HashFree> state(XXH3_createState());
  XXH3_64bits_reset(state.get());
  std::vector<char> piece(size_t{1} << 20);
  FileSum sum;
  while (const size_t got = file.read(piece.data(), piece.size())) {
    XXH3_64bits_update(state.get(), piece.data(), got);
    sum.size += static_cast<int64_t>(got);
  }
  sum.xxh3 = XXH3_64bits_digest(state.get());
  return sum;
}

std::string read_text_file(const std::string& path, int64_t limit) {
  ReadFile file(path);
  if (file.size() > limit)
    throw CheckpointError(one_line(text(path, ": has ", file.size(), " bytes, allowed: at most ", limit)));
  std::string contents(static_cast<size_t>(file.size()), '\0');
  size_t filled = 0;
  while (filled < contents.size()) {
    const size_t got = file.read(contents.data() + filled, contents.size() - filled);
    if (got == 0)
      throw CheckpointError(
          one_line(text(path, ": ended after ", filled, " of ", contents.size(), " bytes")));
    filled += got;
  }
  return contents;
}

void sync_folder(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail(path, "cannot be opened", errno);
  const int result = ::fsync(descriptor), error = errno;
  ::close(descriptor);
  // Some file systems have no folders to flush and say EINVAL.
  if (result != 0 && error != EINVAL) fail(path, "cannot be flushed to the device", error);
}

std::string system_reason(int error) { return std::generic_category().message(error); }

}  // namespace longreach
