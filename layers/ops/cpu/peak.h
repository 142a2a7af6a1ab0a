// The arithmetic peak of this CPU, measured: no honest rate exceeds it.
#pragma once
#include <functional>

namespace longreach {

struct Peak {
  double float32 = 0;   // FLOP/s of one thread, fused multiply-add counted as two
  double bfloat16 = 0;  // the best of float32, AVX-512-BF16 dot products and AMX tiles; one thread
};

// Runs register-only loops with the widest instructions that the CPU has, for about 0.2 s of one thread's CPU
// time. Zeros where no such loop is built in (not x86-64, or no AVX2): then nothing can be judged.
Peak measure_peak();

// For each of the two the larger.
Peak larger(const Peak& a, const Peak& b);

// The highest operations a second of loop(), which returns how many it has done, over runs that fill 60 ms of
// seconds().
double best_rate(const std::function<double()>& loop, const std::function<double()>& seconds);

// The calling thread's own CPU time: it stands still while others hold the core.
double thread_seconds();

}  // namespace longreach
