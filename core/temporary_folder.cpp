// mkdtemp chooses a name that nobody else has, so programs that run side by side never share a folder.
#include "core/temporary_folder.h"

#include <stdlib.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>

#include "core/error.h"

namespace longreach {

namespace fs = std::filesystem;

TemporaryFolder::TemporaryFolder(const fs::path& parent) {
  std::string name = (parent / "longreach-XXXXXX").string();
  check<Error>(::mkdtemp(name.data()) != nullptr, parent.string(),
               ": cannot make a folder: ", std::strerror(errno));
  folder_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

std::string TemporaryFolder::path(const std::string& name) const {
  return (name.empty() ? folder_ : folder_ / name).string();
}

std::string TemporaryFolder::write(const std::string& name, const std::string& contents) const {
  const fs::path file = folder_ / name;
  fs::create_directories(file.parent_path());
  std::ofstream out(file, std::ios::binary);
  out << contents;
  check<Error>(out.flush().good(), file.string(), ": cannot be written");
  return file.string();
}

}  // namespace longreach
