// Files as the data code needs them: positioned reads that say what went wrong, folders in a fixed order,
// writes that are durable before they are believed.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace longreach::data {

// A read-only file. A file that becomes shorter while it is read is an error, not a SIGBUS as with a mapping.
class PositionedFile {
 public:
  explicit PositionedFile(std::string path);  // throws DataError
  ~PositionedFile();
  PositionedFile(const PositionedFile&) = delete;
  PositionedFile& operator=(const PositionedFile&) = delete;
  const std::string& path() const { return path_; }
  int64_t size() const { return size_; }
  // Fills `out` from byte `offset`; safe to call from several threads. Throws DataError.
  void read(int64_t offset, void* out, int64_t bytes) const;

 private:
  std::string path_;
  int fd_ = -1;
  int64_t size_ = 0;
};

// The file itself, or every regular file under a folder, sorted by path; names that begin with a dot are left
// out.
std::vector<std::string> list_files(const std::string& path);

// Durable small writes: a temporary name, fsync, rename. Throws DataError.
void write_atomically(const std::string& path, std::string_view contents);
// Flushes a file or folder to disk. Throws DataError.
void sync_to_disk(const std::string& path);

// ${XDG_CACHE_HOME:-~/.cache}/longreach
std::string user_cache_folder();

}  // namespace longreach::data
