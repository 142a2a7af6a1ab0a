// Files as the data code needs them: positioned reads that say what went wrong, streams that decompress,
// folders in a fixed order, writes that are durable before they are believed.
#pragma once
#include <cstdint>
#include <memory>
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

// Bytes in order, unpacked when they are gzip or Zstandard data, whatever the file's name.
class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // Up to `bytes`; 0 at the end only. Throws DataError naming the file when it is damaged or cut short.
  virtual int64_t read(char* out, int64_t bytes) = 0;
  // Bytes of the file (before decompression) consumed so far, for progress.
  virtual int64_t position() const = 0;
};
// Throws DataError for a file packed or archived in another way (xz, bzip2, zip, tar, ...).
std::unique_ptr<ByteStream> open_stream(const std::string& path);

// Lines of a stream without their newline. A line longer than `limit` bytes is an error.
class LineReader {
 public:
  LineReader(const std::string& path, int64_t limit = int64_t{64} << 20);
  bool next(std::string& line);
  int64_t number() const { return number_; }  // of the line last returned, from 1
  int64_t position() const { return stream_->position(); }

 private:
  std::string path_, buffer_;
  std::unique_ptr<ByteStream> stream_;
  int64_t limit_, number_ = 0;
  size_t at_ = 0;
  bool ended_ = false;
};

// The file itself, or every regular file under a folder, sorted by path; names that begin with a dot are left
// out.
std::vector<std::string> list_files(const std::string& path);

// The ending of a name that says that a file is packed (".gz"), in small letters; empty without one.
std::string_view packed_ending(const std::string& path);
// The name without such an ending, in small letters; for telling kinds of files apart by their extension.
std::string plain_name(const std::string& path);

// Durable small writes: a temporary name, fsync, rename. Throws DataError.
void write_atomically(const std::string& path, std::string_view contents);
// Flushes a file or folder to disk. Throws DataError.
void sync_to_disk(const std::string& path);

// ${XDG_CACHE_HOME:-~/.cache}/longreach
std::string user_cache_folder();

}  // namespace longreach::data
