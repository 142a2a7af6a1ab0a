// An array is read element by element, so that no file has to fit in memory: braces are counted outside of
// strings, and each element is parsed by itself afterwards.
#include "data/corpora/json_records.h"

#include "core/error.h"

namespace longreach::data {

RecordReader::RecordReader(const std::string& path, RecordForm form) : path_(path) {
  if (form == RecordForm::lines)
    lines_ = std::make_unique<LineReader>(path, kLongest);
  else
    stream_ = open_stream(path);
}

bool RecordReader::next(std::string& record) {
  if (!lines_) return next_value(record);
  while (lines_->next(record))
    if (record.find_first_not_of(" \t\r") != std::string::npos) return true;
  return false;
}

std::string RecordReader::where() const { return text(path_, ":", lines_ ? lines_->number() : begun_); }

int64_t RecordReader::position() const { return lines_ ? lines_->position() : stream_->position(); }

int RecordReader::peek() {
  if (at_ == buffer_.size()) {
    buffer_.resize(1 << 16);
    buffer_.resize(static_cast<size_t>(stream_->read(buffer_.data(), static_cast<int64_t>(buffer_.size()))));
    at_ = 0;
    if (buffer_.empty()) return -1;
  }
  return static_cast<unsigned char>(buffer_[at_]);
}

int RecordReader::take() {
  const int byte = peek();
  if (byte >= 0) ++at_;
  if (byte == '\n') ++line_;
  return byte;
}

// White space, a byte order mark at the beginning, the brackets and commas of an array.
void RecordReader::skip_between() {
  bool comma = count_ == 0 || !array_;
  for (int byte; (byte = peek()) >= 0; take()) {
    if (byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n') continue;
    if (count_ == 0 && !array_ && (byte == 0xEF || byte == 0xBB || byte == 0xBF)) continue;
    if (count_ == 0 && !array_ && byte == '[') {
      array_ = true;
    } else if (byte == ',' && !comma) {
      comma = true;
    } else if (byte == ']' && array_ && !closed_ && (!comma || count_ == 0)) {
      closed_ = comma = true;
    } else {
      check<DataError>(byte == '{' && comma && !closed_, path_, ":", line_, ": found `",
                       one_line(std::string(1, static_cast<char>(byte)), 10), "`, expected ",
                       closed_ ? "nothing behind the array"
                       : comma ? "an object {...}"
                               : "`,` or `]`");
      return;
    }
  }
}

void RecordReader::take_object(std::string& record) {
  int64_t depth = 0;
  for (bool in_string = false, escaped = false;;) {
    const int byte = take();
    check<DataError>(byte >= 0, path_, ":", begun_, ": the object that begins here does not end");
    check<DataError>(static_cast<int64_t>(record.size()) < kLongest, path_, ":", begun_,
                     ": an object of more than ", kLongest, " bytes");
    record += static_cast<char>(byte);
    if (in_string) {
      in_string = escaped || byte != '"';
      escaped = !escaped && byte == '\\';
    } else {
      in_string = byte == '"';
      if (byte == '{' || byte == '[') ++depth;
      if ((byte == '}' || byte == ']') && --depth == 0) return;
    }
  }
}

bool RecordReader::next_value(std::string& record) {
  record.clear();
  skip_between();
  begun_ = line_;
  if (peek() < 0) {
    check<DataError>(!array_ || closed_, path_, ":", line_,
                     ": the array does not end; the file was cut short");
    return false;
  }
  take_object(record);
  ++count_;
  return true;
}

}  // namespace longreach::data
