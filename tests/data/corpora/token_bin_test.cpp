// The flat token files of others.
#include "data/corpora/token_bin.h"

#include <gmock/gmock.h>

#include "tests/data/fixtures.h"

namespace longreach::data {
namespace {

using namespace testing;
using ::testing::HasSubstr;

std::string as_bytes(const auto& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(values[0])};
}

TEST(TokenBin, ReadsNanoGpt) {
  const TemporaryFolder folder;
  const std::vector<uint16_t> tokens{5, 6, 256, 7, 256, 8};
  const auto source =
      open_token_bin(folder.write("n.bin", as_bytes(tokens)), ByteLevel({"<|endoftext|>"}, true));
  EXPECT_EQ(read_all(*source), (std::vector<Token>{5, 6, 256, 7, 256, 8}));
  EXPECT_EQ(source->document_offsets(), (std::vector<int64_t>{0, 3, 5, 6}));  // eos ends a document
  EXPECT_EQ(open_token_bin(folder.write("copy.bin", as_bytes(tokens)), ByteLevel({"<|endoftext|>"}, true))
                ->fingerprint(),
            source->fingerprint());
  const auto plain = open_token_bin(folder.path("n.bin"), ByteLevel({"<|endoftext|>"}));
  EXPECT_EQ(plain->document_offsets(), (std::vector<int64_t>{0, 6}));
  EXPECT_THAT(error_of([&] { read_all(*open_token_bin(folder.path("n.bin"), ByteLevel())); }),
              HasSubstr("token 256 at 2"));
  EXPECT_THAT(error_of([&] { open_token_bin(folder.write("o.bin", "abc"), ByteLevel()); }),
              HasSubstr("multiple of 2"));
  EXPECT_THAT(error_of([&] { open_token_bin(folder.write("e.bin", ""), ByteLevel()); }),
              HasSubstr("is empty"));
}

TEST(TokenBin, ReadsLlmC) {
  const TemporaryFolder folder;
  std::vector<int32_t> header(256);
  header[0] = 20240520;
  header[1] = 1;
  header[2] = 5;
  const std::vector<uint16_t> tokens{256, 7, 8, 256, 9};
  const ByteLevel tokenizer({"<|endoftext|>"}, true);
  const auto source = open_token_bin(folder.write("l.bin", as_bytes(header) + as_bytes(tokens)), tokenizer);
  EXPECT_EQ(read_all(*source), (std::vector<Token>{256, 7, 8, 256, 9}));
  EXPECT_EQ(source->document_offsets(), (std::vector<int64_t>{0, 3, 5}));  // eos begins a document
  header[2] = 6;
  EXPECT_THAT(error_of([&] {
                open_token_bin(folder.write("s.bin", as_bytes(header) + as_bytes(tokens)), tokenizer);
              }),
              HasSubstr("says 6 tokens, the file holds 5"));
  header = std::vector<int32_t>(256);
  header[0] = 20240801;
  header[1] = 7;
  header[2] = 2;
  const std::vector<uint32_t> wide{100000, 3};
  const auto llama =
      open_token_bin(folder.write("w.bin", as_bytes(header) + as_bytes(wide)), ByteLevel({}, false, 128256));
  EXPECT_EQ(read_all(*llama), (std::vector<Token>{100000, 3}));
}

}  // namespace
}  // namespace longreach::data
