// TensorBoard event files, written by hand: TFRecord frames around Event messages of the protobuf wire
// format.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace longreach {

// One new file events.out.tfevents.* in a folder. Records are buffered until flush(). Throws TrainingError
// when the disk does not take them.
class TensorboardWriter {
 public:
  // after_step: the step that the run goes on after. Viewers drop what earlier files of the folder say about
  // later ones.
  explicit TensorboardWriter(const std::string& folder, int64_t after_step = 0);
  ~TensorboardWriter();
  TensorboardWriter(const TensorboardWriter&) = delete;
  TensorboardWriter& operator=(const TensorboardWriter&) = delete;

  void scalar(std::string_view tag, double value, int64_t step);
  void text(std::string_view tag, std::string_view markdown, int64_t step);
  void flush();
  const std::string& path() const { return path_; }

 private:
  void record(std::string_view event);

  std::string path_, buffer_;
  int descriptor_ = -1;
};

// CRC-32C (Castagnoli), and its masked form in TFRecord frames.
uint32_t crc32c(std::string_view bytes);
uint32_t masked_crc32c(std::string_view bytes);

}  // namespace longreach
