// Field numbers are those of tensorflow/core/util/event.proto, framework/summary.proto and
// framework/tensor.proto.
#include "train/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "core/error.h"

namespace longreach {
namespace {

constexpr size_t kBufferLimit = size_t{1} << 20;

// Builds one protobuf message.
class Message {
 public:
  Message& integer(int field, int64_t value) {
    key(field, 0);
    varint(static_cast<uint64_t>(value));
    return *this;
  }
  Message& real64(int field, double value) { return fixed(field, 1, value); }
  Message& real32(int field, float value) { return fixed(field, 5, value); }
  Message& bytes(int field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    out_ += value;
    return *this;
  }
  Message& message(int field, const Message& value) { return bytes(field, value.out_); }
  const std::string& str() const { return out_; }

 private:
  void varint(uint64_t value) {
    for (; value > 127; value >>= 7) out_ += static_cast<char>(value | 128);
    out_ += static_cast<char>(value);
  }
  void key(int field, int wire) { varint(static_cast<uint64_t>(field << 3 | wire)); }
  template <class T>
  Message& fixed(int field, int wire, T value) {
    key(field, wire);
    char raw[sizeof value];
    std::memcpy(raw, &value, sizeof value);
    out_.append(raw, sizeof value);
    return *this;
  }
  std::string out_;
};

Message event_at(int64_t step) {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  Message event;
  event.real64(1, now.count());
  if (step != 0) event.integer(2, step);
  return event;
}

std::string new_file_name(const std::string& folder) {
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now).count();
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(now).count() % 1'000'000;
  // Readers take files in the order of their names.
  return text(folder, "/events.out.tfevents.", seconds, ".", host, ".", ::getpid(), ".",
              std::to_string(1'000'000 + micros).substr(1));
}

std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = value & 1 ? 0x82F63B78u ^ (value >> 1) : value >> 1;
    table[i] = value;
  }
  return table;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static const std::array<uint32_t, 256> kTable = crc_table();
  uint32_t value = ~0u;
  for (const char byte : bytes)
    value = kTable[(value ^ static_cast<unsigned char>(byte)) & 255] ^ (value >> 8);
  return ~value;
}

uint32_t masked_crc32c(std::string_view bytes) {
  const uint32_t value = crc32c(bytes);
  return (value >> 15 | value << 17) + 0xA282EAD8u;
}

TensorboardWriter::TensorboardWriter(const std::string& folder, int64_t after_step) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  path_ = new_file_name(folder);
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor_ < 0)
    throw TrainingError(
        one_line(longreach::text(path_, ": cannot be written: ", std::generic_category().message(errno))));
  record(event_at(0).bytes(3, "brain.Event:2").str());
  // SessionLog{status: START}: readers drop this step and later ones of the run's earlier files.
  record(event_at(after_step + 1).message(7, Message().integer(1, 1)).str());
}

TensorboardWriter::~TensorboardWriter() {
  try {
    flush();
  } catch (const Error&) {  // said already by the caller's own flush, or too late to matter
  }
  ::close(descriptor_);
}

void TensorboardWriter::scalar(std::string_view tag, double value, int64_t step) {
  const Message summary = Message().message(1, Message().bytes(1, tag).real32(2, static_cast<float>(value)));
  record(event_at(step).message(5, summary).str());
}

void TensorboardWriter::text(std::string_view tag, std::string_view markdown, int64_t step) {
  constexpr int kStringTensor = 7;  // DT_STRING
  const Message plugin = Message().message(1, Message().bytes(1, "text"));
  const Message shape = Message().message(2, Message().integer(1, 1));
  const Message tensor = Message().integer(1, kStringTensor).message(2, shape).bytes(8, markdown);
  const Message value = Message().bytes(1, tag).message(9, plugin).message(8, tensor);
  record(event_at(step).message(5, Message().message(1, value)).str());
}

void TensorboardWriter::record(std::string_view event) {
  const auto word = [](auto value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof value);
  };
  const std::string length = word(static_cast<uint64_t>(event.size()));
  buffer_ += length + word(masked_crc32c(length));
  buffer_ += event;
  buffer_ += word(masked_crc32c(event));
  if (buffer_.size() > kBufferLimit) flush();
}

void TensorboardWriter::flush() {
  std::string pending;
  pending.swap(buffer_);  // what cannot be written is not tried again
  for (std::string_view rest = pending; !rest.empty();) {
    const ssize_t written = ::write(descriptor_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0)
      throw TrainingError(
          one_line(longreach::text(path_, ": writing failed: ", std::generic_category().message(errno))));
    rest.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace longreach
