#include "checkpoints/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "checkpoints/checked_file.h"
#include "core/error.h"

namespace longreach {

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0)
    throw CheckpointError(one_line(text(path, ": cannot be opened: ", system_reason(errno))));
  struct stat status {};
  const bool regular = ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  const size_t size = regular ? static_cast<size_t>(status.st_size) : 0;
  void* base = nullptr;
  if (size > 0) base = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  const int error = errno;
  ::close(descriptor);
  check<CheckpointError>(regular, one_line(path), ": is not a regular file");
  check<CheckpointError>(base != MAP_FAILED, one_line(path), ": cannot be mapped: ", system_reason(error));
  if (size > 0) bytes_ = {static_cast<const char*>(base), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<char*>(bytes_.data()), bytes_.size());
}

void MappedFile::release(std::string_view part) const {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const auto from = static_cast<size_t>(part.data() - bytes_.data());
  const size_t begin = from / page * page;
  // Advice, which may be refused.
  ::madvise(const_cast<char*>(bytes_.data()) + begin, from + part.size() - begin, MADV_DONTNEED);
}

void MappedFile::copy(std::string_view part, void* to) const {
  constexpr size_t kPiece = size_t{1} << 24;
  for (size_t at = 0; at < part.size(); at += kPiece) {
    const std::string_view piece = part.substr(at, kPiece);
    std::memcpy(static_cast<char*>(to) + at, piece.data(), piece.size());
    release(piece);
  }
}

}  // namespace longreach
