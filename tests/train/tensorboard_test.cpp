// Event files, read back by a small parser of their own frames and fields.
#include "train/tensorboard.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/error.h"
#include "tests/support/files.h"

namespace longreach {
namespace {

std::vector<std::string> records(const std::string& file) {
  std::vector<std::string> events;
  for (size_t at = 0; at < file.size();) {
    uint64_t length = 0;
    uint32_t length_crc = 0, data_crc = 0;
    std::memcpy(&length, file.data() + at, 8);
    std::memcpy(&length_crc, file.data() + at + 8, 4);
    EXPECT_EQ(length_crc, masked_crc32c(std::string_view(file).substr(at, 8)));
    events.push_back(file.substr(at + 12, length));
    std::memcpy(&data_crc, file.data() + at + 12 + length, 4);
    EXPECT_EQ(data_crc, masked_crc32c(events.back()));
    at += 16 + length;
  }
  return events;
}

TEST(Tensorboard, ChecksumsAreCastagnoli) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);  // RFC 3720 B.4
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43u);
}

TEST(Tensorboard, WritesScalarsTextAndTheRestartMark) {
  TemporaryFolder folder;
  TensorboardWriter writer(folder.path("tb"), 299);
  writer.scalar("loss", 2.5, 300);
  writer.text("sample", "To be", 301);
  writer.flush();
  EXPECT_NE(writer.path().find("events.out.tfevents."), std::string::npos);
  const auto events = records(test::read_text(writer.path()));
  ASSERT_EQ(events.size(), 4u);
  // 1: wall time, fixed64. 2: step, varint. 3: file version. 5: summary. 7: session log.
  EXPECT_EQ(events[0].substr(9),
            "\x1A\x0D"
            "brain.Event:2");
  EXPECT_EQ(events[1].substr(9), std::string("\x10\xAC\x02\x3A\x02\x08\x01"));
  EXPECT_EQ(events[2].substr(9), std::string("\x10\xAC\x02\x2A\x0D\x0A\x0B\x0A\x04loss\x15\0\0\x20\x40", 18));
  EXPECT_NE(events[3].find("To be"), std::string::npos);
  EXPECT_NE(events[3].find("\x4A\x08\x0A\x06\x0A\x04text"), std::string::npos);
}

TEST(Tensorboard, FailsClearlyWhereItCannotWrite) {
  TemporaryFolder folder;
  test::write_file(folder.path("file"), "");
  EXPECT_THROW(TensorboardWriter(folder.path("file")), TrainingError);
}

}  // namespace
}  // namespace longreach
