// A file being written where every byte is accounted for: short writes, a full disk and a failed flush are
// errors, and the checksum is of the bytes handed over, not of what a later read returns.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace longreach {

struct FileSum {
  int64_t size = 0;
  uint64_t xxh3 = 0;  // XXH3-64 of the contents
};

// Creates or truncates the regular file `path`. Every method throws CheckpointError naming the path and the
// system's reason. A file that was not finished is removed by the destructor.
class CheckedFile {
 public:
  explicit CheckedFile(const std::string& path);
  ~CheckedFile();
  CheckedFile(const CheckedFile&) = delete;
  CheckedFile& operator=(const CheckedFile&) = delete;

  const std::string& path() const { return path_; }
  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  // Flushes to the device and closes.
  FileSum finish();

 private:
  struct Hash;
  std::string path_;
  int descriptor_ = -1;
  FileSum sum_;
  std::unique_ptr<Hash> hash_;
};

// Size and checksum of a regular file. Throws CheckpointError when it cannot be read to its end.
FileSum sum_of_file(const std::string& path);

// The whole of a text file of at most `limit` bytes. Throws CheckpointError.
std::string read_text_file(const std::string& path, int64_t limit);

// Makes the names in a folder durable. Throws CheckpointError.
void sync_folder(const std::string& path);

// "No space left on device" and the like, for errno.
std::string system_reason(int error);

}  // namespace longreach
