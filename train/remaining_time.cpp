#include "train/remaining_time.h"

#include <algorithm>

namespace longreach {

void RemainingTime::saw_step(double seconds) {
  step_seconds_ = step_seconds_ == 0 ? seconds : 0.9 * step_seconds_ + 0.1 * seconds;
}

void RemainingTime::saw_evaluation(int64_t rows, double seconds) {
  evaluated_rows_ += rows;
  evaluation_seconds_ += seconds;
}

double RemainingTime::after(int64_t step) const {
  const int64_t steps = std::max<int64_t>(plan_.last_step - step, 0);
  int64_t rows = 0;
  if (steps > 0) {
    const int64_t before_last = plan_.final_rows > 0 ? plan_.last_step - 1 : plan_.last_step;
    if (plan_.validation_freq > 0)
      rows = (before_last / plan_.validation_freq - step / plan_.validation_freq) * plan_.validation_rows;
    rows += plan_.final_rows;
  }
  const double row_seconds = evaluated_rows_ > 0
                                 ? evaluation_seconds_ / static_cast<double>(evaluated_rows_)
                                 : step_seconds_ / static_cast<double>(plan_.rows_per_step) / 3;
  return static_cast<double>(steps) * step_seconds_ + static_cast<double>(rows) * row_seconds;
}

}  // namespace longreach
