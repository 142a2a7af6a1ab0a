#include "train/peak_share.h"

#include <algorithm>

#include "core/machine.h"
#include "layers/ops/cpu/parallel.h"
#include "layers/ops/cpu/peak.h"

namespace longreach {

double measured_peak(PeakDtype dtype) {
  static const Peak one_thread = measure_peak();
  const auto threads = static_cast<double>(std::min<int64_t>(num_threads(), usable_cores()));
  return threads * (dtype == PeakDtype::kFloat32 ? one_thread.float32 : one_thread.bfloat16);
}

double PeakShare::of(double rate) {
  if (peak_ <= 0) return -1;
  peak_ = std::max(peak_, rate);
  return rate / peak_;
}

}  // namespace longreach
