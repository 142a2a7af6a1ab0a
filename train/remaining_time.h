// How long a run will still take: its steps, and the evaluations between them.
#pragma once
#include <cstdint>

namespace longreach {

struct RunPlan {
  int64_t last_step = 0;
  int64_t rows_per_step = 1;
  int64_t validation_freq = 0;  // 0: never
  int64_t validation_rows = 0;  // of an evaluation between steps
  int64_t final_rows = 0;  // of the one after the last step, which replaces one that is due there; 0: none
};

class RemainingTime {
 public:
  explicit RemainingTime(const RunPlan& plan) : plan_(plan) {}
  void saw_step(double seconds);
  void saw_evaluation(int64_t rows, double seconds);
  // Seconds from the end of `step`, its evaluation included, to the end of the run. Steps take what they took
  // lately, a row of an evaluation what it took on average; before the first evaluation, a third of a row's
  // time in a step, which goes forward and (twice as long) backward.
  double after(int64_t step) const;

 private:
  RunPlan plan_;
  double step_seconds_ = 0, evaluation_seconds_ = 0;
  int64_t evaluated_rows_ = 0;
};

}  // namespace longreach
