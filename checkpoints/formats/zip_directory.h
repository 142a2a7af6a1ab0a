// Where the entries of a zip archive lie, with the 64-bit extension. Those that are stored as they are can be
// read, which is how torch.save stores them. Without LibTorch.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace longreach {

struct ZipEntry {
  std::string_view bytes;  // of the file
  uint32_t crc32 = 0;
  bool stored = true;  // neither compressed nor encrypted
};

// Every entry by its name. Throws CheckpointError that begins with `who`: no archive, cut short, spread over
// several files, entries outside the file or named twice.
std::map<std::string, ZipEntry> read_zip_directory(std::string_view file, const std::string& who);

// Throws CheckpointError naming `who` when the entry is not stored as it is.
void expect_stored(const ZipEntry& entry, const std::string& who);

// The bytes of such an entry once its checksum holds, else throws CheckpointError naming `who`.
std::string_view checked_bytes(const ZipEntry& entry, const std::string& who);

}  // namespace longreach
