#include "tests/support/files.h"

#include <fstream>

namespace longreach::test {

void write_file(const std::string& path, const std::string& contents) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << contents;
}

void flip_bit(const std::string& path, int64_t byte, int bit) {
  std::string contents = read_text(path);
  contents.at(static_cast<size_t>(byte)) ^= static_cast<char>(1 << bit);
  write_file(path, contents);
}

}  // namespace longreach::test
