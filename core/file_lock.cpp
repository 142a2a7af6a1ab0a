// flock(2): released with the last copy of the descriptor, so no other process may keep a copy: O_CLOEXEC
// closes it in programs that are started, a handler of fork() in processes that are not.
#include "core/file_lock.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <iostream>
#include <mutex>
#include <set>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "core/error.h"

namespace longreach {
namespace {

enum class Attempt { kLocked, kHeld, kRemoved };

// Descriptors of this process' locks.
struct Held {
  std::mutex mutex;
  std::set<int> descriptors;
};

Held& held() {
  static auto* const all = new Held;  // locks may outlive static objects
  return *all;
}

void close_in_forked_processes() {
  static const int kRegistered = ::pthread_atfork([] { held().mutex.lock(); }, [] { held().mutex.unlock(); },
                                                  [] {
                                                    for (const int descriptor : held().descriptors)
                                                      ::close(descriptor);
                                                    held().descriptors.clear();
                                                    held().mutex.unlock();
                                                  });
  check<Error>(kRegistered == 0, "pthread_atfork: ", std::generic_category().message(kRegistered));
}

int open_file(const std::string& path) {
  close_in_forked_processes();
  const std::lock_guard guard(held().mutex);
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  check(descriptor >= 0, one_line(path), ": cannot be written: ", std::generic_category().message(errno));
  held().descriptors.insert(descriptor);
  return descriptor;
}

void close_file(int descriptor) {
  const std::lock_guard guard(held().mutex);
  held().descriptors.erase(descriptor);
  ::close(descriptor);
}

bool same_file(int descriptor, const std::string& path) {
  struct stat opened {
  }, named{};
  return ::fstat(descriptor, &opened) == 0 && ::stat(path.c_str(), &named) == 0 &&
         opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
}

void warn_once(const std::string& path, int error) {
  static std::once_flag said;
  std::call_once(said, [&] {
    std::cerr << "warning: "
              << one_line(text(path, ": the file system has no locks (",
                               std::generic_category().message(error),
                               "): see to it that one process at a time writes here"))
              << std::endl;
  });
}

// The owner before may have removed the file between our open and our lock: then somebody else can lock the
// new one.
Attempt attempt(int descriptor, const std::string& path, bool blocking) {
  while (::flock(descriptor, LOCK_EX | (blocking ? 0 : LOCK_NB)) != 0) {
    if (errno == EINTR) continue;
    if (errno == EWOULDBLOCK) return Attempt::kHeld;
    if (errno == ENOLCK || errno == ENOSYS || errno == EOPNOTSUPP) {
      warn_once(path, errno);
      return Attempt::kLocked;
    }
    throw UserError(one_line(text(path, ": cannot be locked: ", std::generic_category().message(errno))));
  }
  return same_file(descriptor, path) ? Attempt::kLocked : Attempt::kRemoved;
}

// Who holds the lock. Whoever has just taken it may not have written that yet.
std::string holder(int descriptor) {
  char line[400];
  const ssize_t length = ::pread(descriptor, line, sizeof line, 0);
  const std::string_view words(line, static_cast<size_t>(std::max<ssize_t>(length, 0)));
  return words.empty() ? "another process" : one_line(words.substr(0, words.find('\n')));
}

void sign(int descriptor) {
  char host[256] = "unknown";
  ::gethostname(host, sizeof host - 1);
  const std::string line = text("process ", ::getpid(), " on host ", host, "\n");
  // Whether a full disk takes it or not, the lock is ours.
  if (::ftruncate(descriptor, 0) == 0 && ::pwrite(descriptor, line.data(), line.size(), 0) < 0) return;
}

// When it is held: throws what on_held does, or tries again.
template <class OnHeld>
int locked_file(const std::string& path, const OnHeld& on_held) {
  while (true) {
    const int descriptor = open_file(path);
    try {
      Attempt result = attempt(descriptor, path, false);
      if (result == Attempt::kHeld) result = on_held(descriptor);
      if (result == Attempt::kLocked) {
        sign(descriptor);
        return descriptor;
      }
    } catch (...) {
      close_file(descriptor);
      throw;
    }
    close_file(descriptor);
  }
}

}  // namespace

FileLock FileLock::wait(const std::string& path) {
  const auto begun = std::chrono::steady_clock::now();
  bool said = false;
  const auto on_held = [&](int descriptor) {
    while (!said && std::chrono::steady_clock::now() - begun < std::chrono::seconds(1)) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      const Attempt result = attempt(descriptor, path, false);
      if (result != Attempt::kHeld) return result;
    }
    if (!said) std::cerr << one_line(text(path, ": waiting for ", holder(descriptor))) << std::endl;
    said = true;
    return attempt(descriptor, path, true);
  };
  return {path, locked_file(path, on_held)};
}

FileLock FileLock::take(const std::string& path, const std::string& what) {
  const auto on_held = [&](int descriptor) -> Attempt {
    throw UserError(one_line(text(what, ": in use by ", holder(descriptor))));
  };
  return {path, locked_file(path, on_held)};
}

FileLock::FileLock(std::string path, int descriptor)
    : path_(std::move(path)), descriptor_(descriptor), owner_(::getpid()) {}

FileLock::FileLock(FileLock&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      owner_(other.owner_) {}

FileLock::~FileLock() {
  if (descriptor_ < 0 || owner_ != ::getpid()) return;
  ::unlink(path_.c_str());
  close_file(descriptor_);
}

}  // namespace longreach
