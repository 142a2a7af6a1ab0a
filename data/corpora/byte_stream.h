// Streams that decompress, and their lines.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace longreach::data {

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
// All of it, unpacked.
std::string read_whole(const std::string& path);

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

// The ending of a name that says that a file is packed (".gz"), in small letters; empty without one.
std::string_view packed_ending(const std::string& path);
// The name without such an ending, in small letters; for telling kinds of files apart by their extension.
std::string plain_name(const std::string& path);

}  // namespace longreach::data
