// Damaged HDF5 files whose checksums hold, as a tool that rewrites files or a malicious hand makes them: what
// a reader sees of them is not caught by a checksum of the library.
#pragma once
#include <bit>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace longreach::data::testing {

// Bob Jenkins' lookup3, the checksum of HDF5's metadata.
inline uint32_t lookup3(std::string_view bytes) {
  uint32_t a = 0xdeadbeef + static_cast<uint32_t>(bytes.size()), b = a, c = a;
  const auto word = [](std::string_view from) {
    uint32_t value = 0;
    for (size_t i = 0; i < from.size() && i < 4; ++i)
      value |= static_cast<uint32_t>(static_cast<unsigned char>(from[i])) << (8 * i);
    return value;
  };
  const auto part = [&](size_t at) { return bytes.size() > at ? word(bytes.substr(at)) : 0; };
  if (bytes.empty()) return c;
  while (bytes.size() > 12) {
    a += part(0), b += part(4), c += part(8);
    a -= c, a ^= std::rotl(c, 4), c += b;
    b -= a, b ^= std::rotl(a, 6), a += c;
    c -= b, c ^= std::rotl(b, 8), b += a;
    a -= c, a ^= std::rotl(c, 16), c += b;
    b -= a, b ^= std::rotl(a, 19), a += c;
    c -= b, c ^= std::rotl(b, 4), b += a;
    bytes.remove_prefix(12);
  }
  a += part(0), b += part(4), c += part(8);
  c ^= b, c -= std::rotl(b, 14);
  a ^= c, a -= std::rotl(c, 11);
  b ^= a, b -= std::rotl(a, 25);
  c ^= b, c -= std::rotl(b, 16);
  a ^= c, a -= std::rotl(c, 4);
  b ^= a, b -= std::rotl(a, 14);
  c ^= b, c -= std::rotl(b, 24);
  return c;
}

// A block of metadata: its bytes, then their checksum.
struct MetadataBlock {
  size_t begin = 0, end = 0;
};

// Found by their signatures; each ends where the checksum of what precedes stands.
inline std::vector<MetadataBlock> metadata_blocks(const std::string& file) {
  constexpr size_t kLongest = 9000;
  std::vector<MetadataBlock> blocks;
  for (const std::string_view signature : {"\211HDF", "OHDR", "OCHK", "FRHP", "FHDB", "FHIB", "BTHD", "BTLF",
                                           "BTIN", "EAHD", "EAIB", "EASB", "EADB"})
    for (size_t at = file.find(signature); at != std::string::npos; at = file.find(signature, at + 1))
      for (size_t end = at + 8; end + 4 <= file.size() && end < at + kLongest; ++end) {
        const uint32_t sum = lookup3(std::string_view(file).substr(at, end - at));
        if (file.compare(end, 4, std::string(reinterpret_cast<const char*>(&sum), 4)) != 0) continue;
        blocks.push_back({at, end});
        break;
      }
  return blocks;
}

// Changes one to three bytes of one block and mends its checksum.
inline std::string damaged(std::string file, const std::vector<MetadataBlock>& blocks, std::mt19937& random) {
  const MetadataBlock& block = blocks[random() % blocks.size()];
  for (size_t changes = 1 + random() % 3; changes > 0; --changes) {
    char& byte = file[block.begin + 4 + random() % (block.end - block.begin - 4)];
    const auto bit = static_cast<unsigned char>(1U << (random() % 8));
    const char choices[] = {
        '\0', '\1', '\x7f', '\xff', static_cast<char>(byte ^ bit), static_cast<char>(random())};
    byte = choices[random() % std::size(choices)];
  }
  const uint32_t sum = lookup3(std::string_view(file).substr(block.begin, block.end - block.begin));
  return file.replace(block.end, 4, std::string(reinterpret_cast<const char*>(&sum), 4));
}

}  // namespace longreach::data::testing
