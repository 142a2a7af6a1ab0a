// How fast the processor multiplies, and what share of that a rate is.
#pragma once

namespace longreach {

enum class PeakDtype { kFloat32, kBFloat16 };

// Floating-point operations a second that the intra-op threads in use can do: what one thread's multiply-adds
// reach in that thread's own CPU time, which other programs on the machine do not lengthen, times the threads
// that have a core (layers/ops/cpu/peak.h). Threads that share a core's units reach less together. 0: not
// known for this processor. The first call measures, for a fifth of a second.
double measured_peak(PeakDtype dtype);

// What share of a peak a rate is. A rate above the peak proves that the peak was measured too low: it is the
// peak from then on, so no share exceeds 1.
class PeakShare {
 public:
  explicit PeakShare(double peak) : peak_(peak) {}
  // -1 when no peak is known.
  double of(double rate);

 private:
  double peak_;
};

}  // namespace longreach
