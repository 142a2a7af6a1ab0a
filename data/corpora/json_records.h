// The JSON objects of a file: one a line (JSONL), or the elements of an array or a row of objects (.json).
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "data/corpora/byte_stream.h"

namespace longreach::data {

enum class RecordForm { none, lines, values };  // none: the file is one text

class RecordReader {
 public:
  static constexpr int64_t kLongest = int64_t{64} << 20;  // bytes of a record

  RecordReader(const std::string& path, RecordForm form);
  // The next object (of lines: the next line that is not blank). Throws DataError naming file and line.
  bool next(std::string& record);
  std::string where() const;  // "file:line" of the record last returned
  int64_t position() const;

 private:
  bool next_value(std::string& record);
  void skip_between();
  void take_object(std::string& record);
  int peek();  // the next byte, or -1
  int take();

  std::string path_, buffer_;
  std::unique_ptr<LineReader> lines_;
  std::unique_ptr<ByteStream> stream_;
  size_t at_ = 0;
  int64_t line_ = 1, begun_ = 1, count_ = 0;
  bool array_ = false, closed_ = false;
};

}  // namespace longreach::data
