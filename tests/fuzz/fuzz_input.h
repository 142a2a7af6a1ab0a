// What fuzzers share: an input as a file, and errors that are no bugs.
#pragma once
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/temporary_folder.h"

namespace longreach::fuzz {

inline std::string_view view(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// A file with these contents, in memory where the machine has such a place.
inline std::string as_file(std::string_view contents, const std::string& name) {
  static const TemporaryFolder folder("/dev/shm");
  const std::string path = folder.path(name);
  std::ofstream(path, std::ios::binary | std::ios::trunc) << contents;
  return path;
}

// An error that tells the user what to mend is what a broken file deserves, in one line; anything else that
// is thrown ends the fuzzer.
template <class F>
void expect_user_error(F&& read) {
  try {
    read();
  } catch (const UserError& error) {
    if (one_line(error.what(), 4000) != error.what()) __builtin_trap();
  }
}

}  // namespace longreach::fuzz
