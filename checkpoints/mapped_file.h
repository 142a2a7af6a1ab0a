// A file mapped into memory for reading.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace longreach {

class MappedFile {
 public:
  // Throws CheckpointError naming the path: what cannot be opened or mapped, what is no regular file.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  std::string_view bytes() const { return bytes_; }
  // Gives the pages of a part back to the system, to be read again when they are asked for, so that a file is
  // never in memory beside the copy of it.
  void release(std::string_view part) const;
  // Copies a part, giving its pages back as it goes on.
  void copy(std::string_view part, void* to) const;

 private:
  std::string path_;
  std::string_view bytes_;
};

}  // namespace longreach
