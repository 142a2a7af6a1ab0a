#include "checkpoints/formats/zip_directory.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace longreach {
namespace {

constexpr size_t kEndBytes = 22, kLongestComment = 65535, kLocatorBytes = 20, kEnd64Bytes = 56,
                 kCentralBytes = 46, kLocalBytes = 30;
constexpr uint32_t kEndMark = 0x06054b50, kLocatorMark = 0x07064b50, kEnd64Mark = 0x06064b50,
                   kCentralMark = 0x02014b50, kLocalMark = 0x04034b50;
constexpr uint32_t kIn64 = 0xFFFFFFFF;  // the number stands in the 64-bit extension

// Little-endian numbers of a part of the file; every read is within it.
class Record {
 public:
  Record(std::string_view file, uint64_t begin, uint64_t bytes, const std::string& who, const char* what) {
    check<CheckpointError>(begin <= file.size() && bytes <= file.size() - begin, who, ": the zip archive's ",
                           what, " reaches beyond the end of the file");
    part_ = file.substr(begin, bytes);
  }
  template <class Number>
  Number at(size_t offset) const {
    Number number = 0;
    std::memcpy(&number, part_.data() + offset, sizeof number);
    return number;
  }

 private:
  std::string_view part_;
};

struct Directory {
  uint64_t begin = 0, bytes = 0, entries = 0;
};

size_t find_end(std::string_view file, const std::string& who) {
  if (file.size() >= kEndBytes) {
    const size_t last = file.size() - kEndBytes, span = std::min(last, kLongestComment);
    for (size_t at = last + 1; at-- > last - span;) {
      const Record end(file, at, kEndBytes, who, "end");
      if (end.at<uint32_t>(0) == kEndMark && end.at<uint16_t>(20) == last - at) return at;
    }
  }
  throw CheckpointError(who + ": is no whole zip archive; it has no directory at its end");
}

Directory find_directory(std::string_view file, const std::string& who) {
  const size_t at = find_end(file, who);
  const Record end(file, at, kEndBytes, who, "end");
  Directory directory{
      .begin = end.at<uint32_t>(16), .bytes = end.at<uint32_t>(12), .entries = end.at<uint16_t>(10)};
  bool one_file = end.at<uint16_t>(4) == end.at<uint16_t>(6) && end.at<uint16_t>(8) == end.at<uint16_t>(10);
  if (at >= kLocatorBytes) {
    const Record locator(file, at - kLocatorBytes, kLocatorBytes, who, "64-bit locator");
    if (locator.at<uint32_t>(0) == kLocatorMark) {
      const Record end64(file, locator.at<uint64_t>(8), kEnd64Bytes, who, "64-bit end");
      check<CheckpointError>(end64.at<uint32_t>(0) == kEnd64Mark, who,
                             ": the zip archive's 64-bit end is not where its locator says");
      one_file = end64.at<uint64_t>(24) == end64.at<uint64_t>(32);
      directory = {.begin = end64.at<uint64_t>(48),
                   .bytes = end64.at<uint64_t>(40),
                   .entries = end64.at<uint64_t>(32)};
    }
  }
  check<CheckpointError>(one_file, who, ": is one part of a zip archive of several files");
  return directory;
}

// Replaces those of size, packed size and offset that stand in the 64-bit extension.
void read_extension(std::string_view extra, uint64_t& size, uint64_t& packed, uint64_t& offset,
                    const std::string& who) {
  while (extra.size() >= 4) {
    const Record head(extra, 0, 4, who, "extra field");
    const size_t bytes = head.at<uint16_t>(2);
    check<CheckpointError>(bytes <= extra.size() - 4, who, ": its extra field reaches beyond its record");
    if (head.at<uint16_t>(0) == 1) {
      const std::string_view values = extra.substr(4, bytes);
      size_t at = 0;
      for (uint64_t* number : {&size, &packed, &offset}) {
        if (*number != kIn64) continue;
        *number = Record(values, at, 8, who, "64-bit extension").at<uint64_t>(0);
        at += 8;
      }
      return;
    }
    extra.remove_prefix(4 + bytes);
  }
}

}  // namespace

std::map<std::string, ZipEntry> read_zip_directory(std::string_view file, const std::string& who) {
  const Directory directory = find_directory(file, who);
  check<CheckpointError>(directory.begin <= file.size() && directory.bytes <= file.size() - directory.begin &&
                             directory.entries <= directory.bytes / kCentralBytes,
                         who, ": the zip archive's directory of ", directory.entries,
                         " entries reaches beyond the end of the file");
  const std::string_view central = file.substr(directory.begin, directory.bytes);
  std::map<std::string, ZipEntry> entries;
  uint64_t at = 0;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    const Record head(central, at, kCentralBytes, who, "directory");
    check<CheckpointError>(head.at<uint32_t>(0) == kCentralMark, who, ": entry ", i,
                           " of the zip archive's directory is damaged");
    const uint64_t name_bytes = head.at<uint16_t>(28), extra_bytes = head.at<uint16_t>(30),
                   comment_bytes = head.at<uint16_t>(32), all = name_bytes + extra_bytes + comment_bytes;
    at += kCentralBytes;
    check<CheckpointError>(all <= central.size() - at, who, ": entry ", i,
                           " of the zip archive's directory is cut short");
    const std::string name(central.substr(at, name_bytes)), whose = one_line(text(who, ": `", name, "`"));
    uint64_t packed = head.at<uint32_t>(20), size = head.at<uint32_t>(24), offset = head.at<uint32_t>(42);
    read_extension(central.substr(at + name_bytes, extra_bytes), size, packed, offset, whose);
    at += all;
    const bool stored = (head.at<uint16_t>(8) & 1) == 0 && head.at<uint16_t>(10) == 0 && packed == size;
    const Record local(file, offset, kLocalBytes, whose, "local header");
    check<CheckpointError>(local.at<uint32_t>(0) == kLocalMark, whose, ": its local header is damaged");
    const uint64_t begin = offset + kLocalBytes + local.at<uint16_t>(26) + local.at<uint16_t>(28);
    check<CheckpointError>(begin <= file.size() && packed <= file.size() - begin, whose, ": has ", packed,
                           " bytes from byte ", begin, " on, the file ", file.size());
    check<CheckpointError>(
        entries.emplace(name, ZipEntry{file.substr(begin, packed), head.at<uint32_t>(16), stored}).second,
        whose, ": is there twice");
  }
  return entries;
}

void expect_stored(const ZipEntry& entry, const std::string& who) {
  check<CheckpointError>(entry.stored, who,
                         ": is packed or encrypted; torch.save stores entries as they are");
}

std::string_view checked_bytes(const ZipEntry& entry, const std::string& who) {
  expect_stored(entry, who);
  const auto* bytes = reinterpret_cast<const Bytef*>(entry.bytes.data());
  check<CheckpointError>(::crc32_z(0, bytes, entry.bytes.size()) == entry.crc32, who,
                         ": its bytes do not match their checksum");
  return entry.bytes;
}

}  // namespace longreach
