// Dense attention: the promises of a mechanism, with grouped heads, QK-norm, biases and without positions.
#include "layers/dense/dense.h"

#include <gtest/gtest.h>

#include "tests/support/mechanism_checks.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;

LayerSite rich_site() {
  LayerSite site = norm_site();
  site.attention_bias = true;
  return site;
}

TEST(Dense, IsCausal) { expect_causal(DenseConfig{}, small_site()); }

TEST(Dense, DecodesAsForward) {
  expect_decode_equals_forward(DenseConfig{}, small_site());
  expect_decode_equals_forward(DenseConfig{}, rich_site());
  expect_decode_equals_forward(DenseConfig{.rope = false}, small_site());
}

TEST(Dense, DecodesAsForwardBeyondTheFirstCapacityOfTheCache) {
  expect_decode_equals_forward(DenseConfig{}, small_site(), 300);
}

TEST(Dense, DecodesAsForwardUnderEveryRopeScaling) {
  // "dynamic" is among the checks of every mechanism.
  for (const char* type : {"linear", "yarn", "llama3"}) {
    LayerSite site = small_site();
    site.rope = {.rope_type = type, .factor = 4.0, .original_max_position_embeddings = 16};
    expect_decode_equals_forward(DenseConfig{}, site);
  }
}

TEST(Dense, PackedDocumentsAreSeparate) { expect_packed_equals_separate(DenseConfig{}, rich_site()); }

TEST(Dense, FusedIsTheFormula) {
  expect_fused_equals_reference(DenseConfig{}, small_site());
  expect_fused_equals_reference(DenseConfig{}, rich_site());
  expect_fused_equals_reference(DenseConfig{.rope = false}, small_site());
}

TEST(Dense, BFloat16IsClose) { expect_bfloat16_close(DenseConfig{}, rich_site()); }

TEST(Dense, TheCacheGrowsInStepsAndRefusesMoreThanMaxTokens) {
  EXPECT_EQ(decode_bytes(DenseConfig{}, small_site(), 1), 2 * 256 * 2 * 8 * 4);
  EXPECT_EQ(decode_bytes(DenseConfig{}, small_site(), 257), 2 * 512 * 2 * 8 * 4);
  EXPECT_EQ(overflow_message(DenseConfig{}, small_site()),
            "decoding: 3 tokens seen and 3 more do not fit max_tokens = 4");
}

// One key: the output is its value. Two equal keys: the mean of their values.
TEST(Dense, SmallCasesByHand) {
  const at::Tensor q = normal({1, 2, 1, 4}, 1), k = normal({1, 1, 1, 4}, 2).expand({1, 2, 1, 4}),
                   v = normal({1, 2, 1, 3}, 3);
  const at::Tensor o = dense_attention_reference(q, k, v);
  EXPECT_LE(relative_error(o.select(1, 0), v.select(1, 0)), 1e-15);
  EXPECT_LE(relative_error(o.select(1, 1), v.mean(1)), 1e-15);
}

}  // namespace
}  // namespace longreach
