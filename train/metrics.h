// metrics.jsonl: one JSON object a line and step, for plots, scripts and tests.
//
//   {"step": 12, "loss": 2.3456789012345678, "tokens": 98304, "seconds": 7.5, "valid_loss": 2.4}
//
// Numbers carry 17 significant digits: read back, they are the same doubles. JSON has no NaN or infinity:
// such a number is written as null, with a second key NAME_is holding "nan", "inf" or "-inf". A step without
// labels has no loss, and its line no such key. Keys that
// readers of the file know: `tokens` (seen so far), `seconds` (trained so far), `valid_NAME` (NAME on
// held-out text; only on lines of steps that were validated).
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace longreach {

using NamedNumbers = std::vector<std::pair<std::string, double>>;

class MetricsLog {
 public:
  // Opens or creates the file for a run that stands after `last_step`: lines of later steps, a torn last line
  // and what is not a line of ours are dropped, through a new file and a rename. -1 starts afresh. Throws
  // TrainingError.
  MetricsLog(const std::string& path, int64_t last_step);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  // Appends one line, written at once. `step` must rise from call to call; `numbers` keep their order. Throws
  // TrainingError, also when the folder was removed or renamed under the run.
  void append(int64_t step, std::optional<double> loss, const NamedNumbers& numbers = {});
  // Makes what was appended durable (with a checkpoint). Throws as append does.
  void sync();
  // Throws TrainingError when the folder was removed or renamed.
  void expect_folder() const;

 private:
  std::string path_, folder_;
  uint64_t device_ = 0, inode_ = 0;  // of the folder
  int descriptor_ = -1;
  int64_t last_step_ = -1;
};

// The line without its newline.
std::string metrics_line(int64_t step, std::optional<double> loss, const NamedNumbers& numbers);

}  // namespace longreach
