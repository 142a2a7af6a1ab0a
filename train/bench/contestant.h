// One side of a comparison: something that computes an attention, here or in another process.
#pragma once
#include <functional>

#include "core/error.h"
#include "train/bench/bench_case.h"
#include "train/bench/clock.h"

namespace longreach::bench {

// The benchmark gives no number: a result disagrees, or a rate cannot be.
struct Refusal : Error {
  using Error::Error;
};

// In the layout and order of Problem; gradients are undefined in a forward-only comparison.
struct Result {
  at::Tensor o, dq, dk, dv;
};

// What can be timed.
class Timed {
 public:
  virtual ~Timed() = default;
  // Does its work `repeats` times; time of all of them.
  virtual Timing run(int64_t repeats) = 0;
};

// Its time leaves conversions of layout out.
class Contestant : public Timed {
 public:
  // Computes once, untimed.
  virtual Result result() = 0;
  // Whether it computes the very function of the case; otherwise it is dense causal attention in its place.
  virtual bool same_function() const = 0;
};

// Ours: `fused` over q, k, v as they are, [B, T, H, D].
std::unique_ptr<Contestant> local_contestant(const BenchCase& bench_case, const Problem& problem,
                                             bool backward);

// Our own dense causal kernel, interval_attention, over the same inputs.
std::unique_ptr<Contestant> dense_contestant(const BenchCase& bench_case, const Problem& problem,
                                             bool backward);

// at::scaled_dot_product_attention on its flash kernel, causal, over contiguous [B, H, T, D] copies: the
// layout it likes best.
std::unique_ptr<Contestant> sdpa_contestant(const BenchCase& bench_case, const Problem& problem,
                                            bool backward);

}  // namespace longreach::bench
