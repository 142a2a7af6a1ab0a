// What a person sees while training: one line that updates itself on a terminal, a line now and then
// otherwise.
#pragma once
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>

namespace longreach {

struct ProgressReport {
  int64_t step = 0, last_step = 0;
  std::optional<double> loss;  // none: the step had no label
  double tokens_per_second = 0;
  double peak_share = -1;     // of the machine's measured matmul peak, 0..1; negative: not known
  double gradient_norm = -1;  // negative: not known
  double learning_rate = 0;
  int64_t memory_bytes = 0;
  double eta_seconds = -1;  // negative: not known
};

// "step   120/1000  loss 2.3457  12.3k tok/s  41% of peak  grad 1.23  lr 3.0e-04  1.20 GiB  ETA 3m12s"
std::string progress_text(const ProgressReport& report);
// "1d02h", "2h05m", "3m12s", "9s"
std::string duration_text(double seconds);

// The text of an evaluation's progress.
class EvaluationClock {
 public:
  // "evaluating 120/1000 rows  ETA 12s"; begins anew when done is 0.
  std::string at(int64_t done, int64_t rows);
  double seconds() const;  // since it began

 private:
  std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
};

class ProgressLine {
 public:
  // plain_seconds: the least time between two lines when `out` is not a terminal.
  explicit ProgressLine(std::FILE* out = stdout, double plain_seconds = 10.0);
  // Forces the manner instead of asking the system.
  ProgressLine(std::FILE* out, double plain_seconds, bool terminal);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // At most ten times a second on a terminal; the first and the last step are always shown.
  void update(const ProgressReport& report);
  // What goes on between steps: in place of the updating line; elsewhere a line when nothing was shown for
  // ten seconds.
  void activity(const std::string& line);
  // A line that stays, above the one that updates.
  void message(const std::string& line);
  // Ends the updating line. Safe to call twice.
  void finish();

 private:
  double seconds_since_shown() const;
  void show(const std::string& line);

  std::FILE* out_;
  const double interval_;
  const bool terminal_;
  bool shown_ = false, open_ = false;
  std::string current_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace longreach
