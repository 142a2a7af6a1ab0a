// Inputs and the comparison with the float64 reference that the tests of interval attention share.
#pragma once
#include <optional>
#include <string>

#include "core/error.h"
#include "layers/ops/interval_attention/interval_attention.h"
#include "tests/layers/ops/common/attention_cases.h"

namespace longreach::test {

struct AttentionCase {
  int64_t batch = 2, queries = 65, keys = 65, heads = 4, key_heads = 4, value_heads = 4, qk_size = 16,
          v_size = 16;
  IntervalMask mask;
  double magnitude = 1.0;  // of q: multiplies the logits
  std::optional<double> scale;
  uint64_t seed = 1;
  bool gradient_of_o = true, gradient_of_lse = true;

  std::string name() const {
    return text("B", batch, " Tq", queries, " Tk", keys, " H", heads, '/', key_heads, '/', value_heads, " D",
                qk_size, '/', v_size, " causal", mask.causal, " window", mask.window, " sinks", mask.sinks,
                mask.lo.defined() ? " lo/hi" : "", mask.cu_seqlens_q.defined() ? " packed" : "", " seed",
                seed);
  }
};

using Attention = IntervalAttentionOutput (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                              const IntervalMask&, std::optional<double>);

inline AttentionResult run_attention(const AttentionCase& c, Attention attention, at::ScalarType dtype,
                                     at::ScalarType rounding) {
  return attention_results(c, dtype, rounding,
                           [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
                             return attention(q, k, v, c.mask, c.scale);
                           });
}

// Fused in `dtype` against the reference in float64.
inline void expect_matches_reference(const AttentionCase& c, at::ScalarType dtype,
                                     Attention operation = interval_attention) {
  SCOPED_TRACE(c.name());
  expect_within_rounding(run_attention(c, operation, dtype, dtype),
                         run_attention(c, interval_attention_reference, at::kDouble, dtype),
                         run_attention(c, interval_attention_reference, dtype, dtype), dtype);
}

// Per query an interval of random ends, about one in six empty.
inline void random_intervals(AttentionCase& c, int64_t batches, int64_t heads, uint64_t seed) {
  const auto ends = [&](uint64_t salt) {
    return (normal({batches, heads, c.queries}, seed + salt) * 0.5 * static_cast<double>(c.keys + 1) +
            0.5 * static_cast<double>(c.keys))
        .to(at::kInt);
  };
  c.mask.lo = ends(0) - static_cast<int64_t>(c.keys / 2);
  c.mask.hi = ends(1) + static_cast<int64_t>(c.keys / 3);
}

inline AttentionCase random_attention_case(uint64_t seed, int64_t most_features) {
  Draw draw(seed);
  const int64_t counts[] = {1, 2, 3, 4, 6};
  AttentionCase c{.seed = seed};
  c.heads = counts[draw(0, 4)];
  c.key_heads = draw.divisor(c.heads), c.value_heads = draw.divisor(c.heads);
  c.qk_size = draw(1, most_features), c.v_size = draw(1, most_features);
  c.batch = draw(1, 2), c.queries = draw(0, 150);
  c.keys = draw(0, 2) == 0 ? draw(0, 150) : c.queries;
  c.mask.causal = draw(0, 3) != 0;
  if (draw(0, 1) == 0) c.mask.window = draw(1, 90);
  if (draw(0, 1) == 0) c.mask.sinks = draw(1, 80);
  if (draw(0, 2) == 0) {
    c.batch = 1;
    c.mask.cu_seqlens_q = draw.cu_seqlens(c.queries), c.mask.cu_seqlens_k = draw.cu_seqlens(c.keys);
  }
  if (draw(0, 3) == 0) random_intervals(c, draw(0, 1) == 0 ? 1 : c.batch, c.heads, seed);
  return c;
}

}  // namespace longreach::test
