// Sliding attention: the promises of a mechanism, with grouped heads, QK-norm, biases and without positions.
#include "layers/attention/sliding/sliding.h"

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "tests/support/mechanism_checks.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;

const std::vector<SlidingConfig>& configs() {
  static const std::vector<SlidingConfig> all{{.window = 5},
                                              {.window = 5, .sinks = 3},
                                              {.window = 1, .sinks = 2},
                                              {.window = 1},
                                              {.window = 16, .sinks = 1, .rope = false},
                                              {.window = 1000, .sinks = 4}};
  return all;
}

TEST(Sliding, IsCausal) {
  for (const auto& config : configs()) expect_causal(config, small_site());
}

TEST(Sliding, DecodesAsForward) {
  for (const auto& config : configs()) expect_decode_equals_forward(config, norm_site());
}

TEST(Sliding, DecodesAsForwardWhenTheBufferHasTurnedManyTimes) {
  expect_decode_equals_forward(SlidingConfig{.window = 5, .sinks = 3}, small_site(), 400);
  expect_decode_equals_forward(SlidingConfig{.window = 70, .sinks = 1}, small_site(), 400);
}

TEST(Sliding, PackedDocumentsAreSeparate) {
  for (const auto& config : configs()) expect_packed_equals_separate(config, norm_site());
}

TEST(Sliding, FusedIsTheFormula) {
  for (const auto& config : configs()) expect_fused_equals_reference(config, norm_site());
}

TEST(Sliding, BFloat16IsClose) { expect_bfloat16_close(SlidingConfig{.window = 7, .sinks = 2}, norm_site()); }

TEST(Sliding, TheCacheIsAsLargeAsTheWindowWhateverTheLength) {
  const SlidingConfig config{.window = 100, .sinks = 4};
  const int64_t bytes = decode_bytes(config, small_site(), 50);
  EXPECT_EQ(bytes, 2 * (4 + 99 + 100) * 2 * 8 * 4);
  EXPECT_EQ(decode_bytes(config, small_site(), 1000), bytes);
  EXPECT_EQ(overflow_message(config, small_site()),
            "decoding: 3 tokens seen and 3 more do not fit max_tokens = 4");
}

// Which keys are seen, by counting: equal scores make the output the mean of the visible values.
TEST(Sliding, SeesTheWindowAndTheSinks) {
  const int64_t tokens = 9, window = 3, sinks = 2;
  const at::Tensor flat = at::zeros({1, tokens, 1, 4}, at::kDouble), v = normal({1, tokens, 1, 3}, 3);
  const at::Tensor o = sliding_attention_reference(flat, flat, v, window, sinks);
  for (int64_t i = 0; i < tokens; ++i) {
    at::Tensor sum = at::zeros({1, 1, 3}, at::kDouble);
    int64_t seen = 0;
    for (int64_t j = 0; j <= i; ++j) {
      if (j <= i - window && j >= sinks) continue;
      sum += v.select(1, j);
      ++seen;
    }
    EXPECT_LE(relative_error(o.select(1, i), sum / static_cast<double>(seen)), 1e-14) << "query " << i;
  }
}

}  // namespace
}  // namespace longreach
