// The machine under the program: its names, its memory, and how fast it multiplies matrices.
#pragma once
#include <cstdint>
#include <string>

namespace longreach {

std::string cpu_name();        // "Intel(R) Xeon(R) ...", or the architecture when the system does not say
int64_t usable_cores();        // that this process may run on
int64_t total_memory_bytes();  // of the machine, or of the container's limit when that is less
// That this process may still take: what the machine can give without swapping others out, and swap, within the limits of
// its containers and of its address space. `root`: where /proc and /sys are sought, for tests.
int64_t available_memory_bytes(const std::string& root = "");
int64_t resident_bytes();       // of this process, now
int64_t peak_resident_bytes();  // of this process, ever

enum class PeakDtype { kFloat32, kBFloat16 };

// Floating-point operations a second that the intra-op threads in use can do: what one thread's multiply-adds reach in
// that thread's own CPU time, which other programs on the machine do not lengthen, times the threads that have a core
// (train/bench/peak.h). Threads that share a core's units reach less together. 0: not known for this processor. The
// first call measures, for a fifth of a second.
double measured_peak(PeakDtype dtype);

// What share of a peak a rate is. A rate above the peak proves that the peak was measured too low: it is the peak from
// then on, so no share exceeds 1.
class PeakShare {
 public:
  explicit PeakShare(double peak) : peak_(peak) {}
  // -1 when no peak is known.
  double of(double rate);

 private:
  double peak_;
};

}  // namespace longreach
