// A folder of a test's own, gone when the test ends; and small file edits for damage tests.
#pragma once
#include <cstdint>
#include <string>

namespace longreach::test {

class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& contents);
// Inverts one bit of one byte.
void flip_bit(const std::string& path, int64_t byte, int bit = 0);

}  // namespace longreach::test
