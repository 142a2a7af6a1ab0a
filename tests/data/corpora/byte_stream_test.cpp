// Files as streams of text: gzip and zstd by their content, foreign formats refused; and their lines.
#include "data/corpora/byte_stream.h"

#include <gmock/gmock.h>

#include "tests/data/corpora/texts.h"

namespace longreach::data {
namespace {

using namespace testing;
using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string stream_of(const std::string& path) {
  const auto stream = open_stream(path);
  std::string all, block(777, '\0');
  while (const int64_t got = stream->read(block.data(), 777)) all.append(block, 0, static_cast<size_t>(got));
  return all;
}

TEST(ByteStream, DecompressesGzipAndZstd) {
  const TemporaryFolder folder;
  const std::string text = random_text(1000000);
  EXPECT_TRUE(stream_of(folder.write("a.txt", text)) == text);
  EXPECT_TRUE(stream_of(folder.write("a.gz", gzip(text))) == text);
  EXPECT_TRUE(stream_of(folder.write("b.gz", gzip(text) + gzip("more"))) == text + "more");
  EXPECT_TRUE(stream_of(folder.write("a.zst", zstd(text))) == text);
  EXPECT_TRUE(stream_of(folder.write("b.zst", zstd(text) + zstd("more"))) == text + "more");
  for (const char* name : {"c.gz", "c.zst"}) {
    const std::string packed = name == std::string("c.gz") ? gzip(text) : zstd(text);
    for (size_t part = 0; part < 20; ++part) {
      const auto path = folder.write(name, packed.substr(0, packed.size() * part / 20));
      EXPECT_THAT(error_of([&] { stream_of(path); }), StartsWith(path));
    }
    const auto path = folder.write(name, "not packed at all");
    EXPECT_THAT(error_of([&] { stream_of(path); }), StartsWith(path));
  }
}

// The same bytes under any name; what cannot be unpacked is named, and never text.
TEST(ByteStream, KnowsPackedFilesByTheirContent) {
  using namespace std::string_literals;
  const TemporaryFolder folder;
  const std::string text = random_text(5000), zeros(700, '\0');
  for (const std::string name : {"a", "A.TXT", "a.txt.GZ", "a.xz"}) {
    EXPECT_TRUE(stream_of(folder.write(name, gzip(text))) == text) << name;
    EXPECT_TRUE(stream_of(folder.write(name, gzip(text) + gzip("more") + zeros)) == text + "more") << name;
    EXPECT_TRUE(stream_of(folder.write(name, zstd(text))) == text) << name;
    const std::string skipped = "\x5F\x2A\x4D\x18\x03\0\0\0abc"s;
    EXPECT_TRUE(stream_of(folder.write(name, skipped + zstd(text) + skipped)) == text) << name;
  }
  EXPECT_THAT(error_of([&] { stream_of(folder.write("a.gz", gzip(text) + zeros + "x")); }),
              HasSubstr("no gzip data"));
  const std::vector<std::pair<std::string, std::string>> foreign{
      {"\xFD\x37zXZ\0...."s, "xz"},
      {"BZh91AY&SY....", "bzip2"},
      {"PK\x03\x04....", "zip archive"},
      {"7z\xBC\xAF\x27\x1C", "7z archive"},
      {std::string(257, 'n') + "ustar", "tar archive"},
  };
  for (const auto& [bytes, expected] : foreign) {
    for (const std::string& file : {bytes, gzip(bytes), zstd(bytes)}) {
      const auto path = folder.write("b.txt", file);
      const auto message = error_of([&] { stream_of(path); });
      EXPECT_THAT(message, StartsWith(path));
      EXPECT_THAT(message, HasSubstr(expected));
    }
  }
  const std::string parquet = folder.write("it's.txt", "PAR1\x15....");
  std::string quoted = "'" + parquet + "'";
  quoted.replace(quoted.find("it's"), 4, "it'\\''s");
  EXPECT_THAT(error_of([&] { stream_of(parquet); }),
              AllOf(HasSubstr("a Parquet file, which is not read"), HasSubstr("python3 -c \"import json"),
                    EndsWith("\" " + quoted + " > " + quoted + ".jsonl")));
  EXPECT_THAT(error_of([&] { stream_of(folder.write("c.gz", gzip(zstd(text)))); }),
              HasSubstr("packed twice"));
  EXPECT_THAT(error_of([&] { stream_of(folder.write("d.GZ", text)); }), HasSubstr("name ends in .gz"));
  for (const std::string words : {"BZh9 is no archive", "PK and 7z", "Rar!"})
    EXPECT_EQ(stream_of(folder.write("e.txt", words)), words);
}

// A window of 2 GiB for 2 kB, as `zstd --long=31` asks for when it does not know the size.
TEST(ByteStream, ReadsLongZstdWindows) {
  const TemporaryFolder folder;
  const std::string text = random_text(3000);
  for (const int log : {27, 31}) {
    std::string frame = zstd(text);
    // The header of a frame without its size: magic, descriptor 0, window (exponent - 10) << 3.
    const auto size_bytes = 2 * (static_cast<unsigned char>(frame[4]) >> 6);
    frame = frame.substr(0, 4) + '\0' + static_cast<char>((log - 10) << 3) +
            frame.substr(5 + static_cast<size_t>(size_bytes == 0 ? 1 : size_bytes));
    EXPECT_TRUE(stream_of(folder.write("a.zst", frame)) == text) << log;
  }
  const auto wide =
      folder.write("b.zst", zstd(text).substr(0, 4) + '\0' + static_cast<char>(22 << 3) + "abc");
  EXPECT_THAT(error_of([&] { stream_of(wide); }), HasSubstr("window of more than 2 GiB"));
}

TEST(LineReader, CutsLines) {
  const TemporaryFolder folder;
  LineReader reader(folder.write("l", "a\n\nbc\r\n" + std::string(700000, 'x') + "\nlast"));
  std::vector<std::string> lines;
  for (std::string line; reader.next(line);) lines.push_back(line);
  EXPECT_EQ(lines, (std::vector<std::string>{"a", "", "bc\r", std::string(700000, 'x'), "last"}));
  LineReader limited(folder.path("l"), 1000);
  EXPECT_THAT(error_of([&] {
                for (std::string line; limited.next(line);) {
                }
              }),
              HasSubstr("l:4: line of more than"));
}

}  // namespace
}  // namespace longreach::data
