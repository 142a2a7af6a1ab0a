// The magic numbers of packed files, archives and binary tables.
#include "data/corpora/file_kind.h"

#include <array>

namespace longreach::data {
namespace {

using namespace std::string_view_literals;

struct Magic {
  size_t at;
  std::string_view bytes;
  ForeignKind kind;
};

constexpr std::string_view kUnpack = "unpack its files first";
constexpr std::string_view kAsJsonLines = "write the text as JSONL";
constexpr std::string_view kFromParquet =
    "this makes JSONL of it: python3 -c \"import json, sys, pyarrow.parquet as p; [print(json.dumps(row, "
    "default=str)) for part in p.ParquetFile(sys.argv[1]).iter_batches() for row in part.to_pylist()]\" "
    "FILE > FILE.jsonl";

constexpr std::array kMagics{
    Magic{0, "\xFD\x37zXZ\0"sv, {"packed with xz", "unpack it with `xz -d`, or pack it with gzip or zstd"}},
    Magic{0, "\x5D\0\0"sv, {"packed with lzma", "unpack it with `xz -d`, or pack it with gzip or zstd"}},
    Magic{4,
          "\x31\x41\x59\x26\x53\x59"sv,
          {"packed with bzip2", "unpack it with `bzip2 -d`, or pack it with gzip or zstd"}},
    Magic{4, "\x17\x72\x45\x38\x50\x90"sv, {"packed with bzip2", "it is empty"}},
    Magic{0,
          "\x04\x22\x4D\x18"sv,
          {"packed with lz4", "unpack it with `lz4 -d`, or pack it with gzip or zstd"}},
    Magic{0, "\x1F\x9D"sv, {"packed with compress", "unpack it with `gzip -d`"}},
    Magic{0, "LZIP\x01"sv, {"packed with lzip", "unpack it with `lzip -d`"}},
    Magic{0, "\x89LZO\0"sv, {"packed with lzop", "unpack it with `lzop -d`"}},
    Magic{0, "\xFF\x06\0\0sNaPpY"sv, {"packed with snappy", "unpack it first"}},
    Magic{0, "PK\x03\x04"sv, {"a zip archive", kUnpack}},
    Magic{0, "PK\x05\x06"sv, {"an empty zip archive", kUnpack}},
    Magic{0, "PK\x07\x08"sv, {"a zip archive", kUnpack}},
    Magic{0, "7z\xBC\xAF\x27\x1C"sv, {"a 7z archive", kUnpack}},
    Magic{0, "Rar!\x1A\x07"sv, {"a rar archive", kUnpack}},
    Magic{257, "ustar"sv, {"a tar archive", kUnpack}},
    Magic{0, "PAR1\x15"sv, {"a Parquet file", kFromParquet}},
    Magic{0, "ARROW1\0\0"sv, {"an Arrow file", kAsJsonLines}},
    Magic{0, "\x89HDF\r\n\x1A\n"sv, {"an HDF5 file", "a token store is named .h5"}},
};

}  // namespace

Packing packing_of(std::string_view head) {
  if (head.starts_with("\x1F\x8B\x08"sv)) return Packing::gzip;
  if (head.starts_with("\x28\xB5\x2F\xFD"sv)) return Packing::zstd;
  // A frame to be skipped, which zstd writes before others.
  const bool skippable = head.size() >= 4 && head.substr(1, 3) == "\x2A\x4D\x18"sv &&
                         (static_cast<unsigned char>(head[0]) & 0xF0) == 0x50;
  return skippable ? Packing::zstd : Packing::none;
}

ForeignKind foreign_kind(std::string_view head) {
  for (const Magic& magic : kMagics) {
    const bool bzip2 = magic.kind.is == "packed with bzip2";
    if (bzip2 && !head.starts_with("BZh")) continue;
    if (head.size() > magic.at && head.substr(magic.at).starts_with(magic.bytes)) return magic.kind;
  }
  return {};
}

std::string advice_on(const ForeignKind& kind, const std::string& path) {
  std::string quoted = "'";
  for (const char c : path) quoted += c == '\'' ? "'\\''" : std::string(1, c);
  quoted += '\'';
  std::string advice(kind.advice);
  constexpr std::string_view kName = "FILE";
  for (size_t at = 0; (at = advice.find(kName, at)) != std::string::npos; at += quoted.size())
    advice.replace(at, kName.size(), quoted);
  return advice;
}

}  // namespace longreach::data
