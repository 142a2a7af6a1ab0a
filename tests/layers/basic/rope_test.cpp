// The rotary embedding in Hugging Face's convention, and its scalings against numbers computed from the
// published formulas.
#include "layers/basic/rope.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "layers/basic/rope_documents.h"
#include "tests/support/gradients.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;

void expect_frequencies(const RopeConfig& config, int64_t head_dim, int64_t max_positions, int64_t length,
                        const std::vector<double>& expected) {
  const auto found = RotaryEmbedding(config, head_dim, max_positions).inverse_frequencies(length);
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i)
    EXPECT_NEAR(found[i] / expected[i], 1.0, 1e-13) << config.rope_type << " " << i;
}

at::Tensor row(int64_t first, int64_t count) {
  return at::arange(first, first + count, at::kLong).unsqueeze(0);
}

TEST(Rope, InverseFrequencies) {
  expect_frequencies({}, 8, 100, 0, {1, 0.1, 0.01, 0.001});
  expect_frequencies({.rope_type = "linear", .factor = 4.0}, 8, 100, 0, {0.25, 0.025, 0.0025, 0.00025});
}

TEST(Rope, DynamicNtk) {
  const RopeConfig config{.rope_type = "dynamic", .factor = 2.0};
  expect_frequencies(config, 8, 1024, 100, {1, 0.1, 0.01, 0.001});
  expect_frequencies(config, 8, 1024, 4096,
                     {1, 0.052275795857471025, 0.0027327588325319844, 0.00014285714285714287});
}

TEST(Rope, Yarn) {
  const RopeConfig config{.rope_type = "yarn", .factor = 4.0, .original_max_position_embeddings = 4096};
  expect_frequencies(config, 16, 16384, 0,
                     {1, 0.31622776601683794, 0.10000000000000001, 0.02569350598886808, 0.0062500000000000003,
                      0.0013834964763236657, 0.00025000000000000001, 7.9056941504209485e-05});
  RotaryEmbedding rope(config, 16, 16384);
  EXPECT_NEAR(rope.attention_factor(), 1.1386294361119891, 1e-14);
  EXPECT_NEAR(rope.at(row(0, 1), at::kDouble).cos[0][0][3].item<double>(), 1.1386294361119891, 1e-14);
}

TEST(Rope, Llama3) {
  const RopeConfig config{
      .theta = 5e5, .rope_type = "llama3", .factor = 8.0, .original_max_position_embeddings = 8192};
  expect_frequencies(
      config, 16, 131072, 0,
      {1, 0.19392274474868576, 0.037606030930863933, 0.0072926647372171093, 0.00052484616099295468,
       3.4281021959525912e-05, 6.6478698711812354e-06, 1.2891731721515574e-06});
}

TEST(Rope, RotatesHalfAgainstHalf) {
  RotaryEmbedding rope({}, 4, 64);
  const at::Tensor x = normal({1, 3, 2, 4}, 1), y = rotate(x, rope.at(row(5, 3), at::kDouble));
  for (int64_t t = 0; t < 3; ++t) {
    for (int64_t i = 0; i < 2; ++i) {
      const double angle = static_cast<double>(5 + t) * (i == 0 ? 1.0 : 0.01);
      const double a = x[0][t][1][i].item<double>(), b = x[0][t][1][i + 2].item<double>();
      EXPECT_NEAR(y[0][t][1][i].item<double>(), a * std::cos(angle) - b * std::sin(angle), 1e-14);
      EXPECT_NEAR(y[0][t][1][i + 2].item<double>(), b * std::cos(angle) + a * std::sin(angle), 1e-14);
    }
  }
}

TEST(Rope, GradientIsTheRotationBack) {
  RotaryEmbedding rope({}, 6, 64);
  const Rotation rotation = rope.at(row(3, 4), at::kDouble);
  EXPECT_LE(gradient_error([&](const std::vector<at::Tensor>& in) { return rotate(in[0], rotation); },
                           {normal({1, 4, 2, 6}, 1)}),
            1e-8);
}

TEST(Rope, FarPositionsKeepTheirAngle) {
  // 2^20 - 1 exceeds what bfloat16 counts; in float32 the product of position and frequency would lose six
  // digits.
  RotaryEmbedding rope({}, 8, 1 << 20);
  const int64_t far = (1 << 20) - 1;
  const at::Tensor cos = rope.at(row(far, 1), at::kFloat).cos;
  EXPECT_EQ(cos.scalar_type(), at::kFloat);
  for (int64_t i = 0; i < 4; ++i)
    EXPECT_NEAR(cos[0][0][i].item<double>(),
                std::cos(static_cast<double>(far) * std::pow(10.0, -static_cast<double>(i))), 1e-7);
}

TEST(Rope, TheTableGrowsAndChangesDtypeWithoutChangingValues) {
  RotaryEmbedding rope({}, 8, 64);
  const at::Tensor first = rope.at(row(0, 10), at::kDouble).sin.clone();
  rope.at(row(5000, 3), at::kFloat);
  EXPECT_TRUE(rope.at(row(0, 10), at::kDouble).sin.equal(first));
  EXPECT_EQ(rope.at(row(0, 0), at::kFloat).cos.numel(), 0);
}

TEST(Rope, BFloat16HeadsAreRotatedInFloat32) {
  RotaryEmbedding rope({}, 64, 4096);
  const at::Tensor x = normal({1, 8, 2, 64}, 1).to(at::kBFloat16);
  const at::Tensor y = rotate(x, rope.at(row(1000, 8), at::kBFloat16));
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  EXPECT_LE(relative_error(y, rotate(x.to(at::kDouble), rope.at(row(1000, 8), at::kDouble))), 2.5e-3);
}

// Documents in one row: each has the angles that it has alone, those of the longest are not for all.
TEST(Rope, DynamicScalesByEachDocumentsOwnLength) {
  const RopeConfig config{.rope_type = "dynamic", .factor = 4.0, .original_max_position_embeddings = 8};
  RotaryEmbedding rope(config, 8, 64);
  const at::Tensor positions = at::cat({row(0, 40), row(0, 1), row(0, 5), row(0, 15)}, 1);
  const Rotation packed = rope.at(positions, at::kDouble);
  for (const auto& [first, count] :
       std::vector<std::pair<int64_t, int64_t>>{{0, 40}, {40, 1}, {41, 5}, {46, 15}}) {
    const Rotation alone = RotaryEmbedding(config, 8, 64).at(row(0, count), at::kDouble);
    EXPECT_LE(relative_error(packed.cos.narrow(1, first, count), alone.cos), 1e-15) << count;
    EXPECT_LE((packed.sin.narrow(1, first, count) - alone.sin).abs().max().item<double>(), 1e-15) << count;
  }
  // Blocks of 16 tokens: the rotation of a block is that of its first token.
  const at::Tensor tokens = at::tensor({0, 40, 41, 46, 61}, at::kInt),
                   blocks = at::tensor({0, 3, 4, 5, 6}, at::kInt);
  const at::Tensor at_rows =
      tokens_of_rows(tokens, blocks, at::tensor({0, 16, 32, 0, 0, 0}, at::kLong).unsqueeze(0));
  EXPECT_TRUE(at_rows.equal(at::tensor({0, 16, 32, 40, 41, 46}, at::kLong)));
  EXPECT_TRUE(at_tokens(packed, at_rows).cos.select(1, 2).equal(packed.cos.select(1, 32)));
  EXPECT_TRUE(document_positions(tokens).equal(positions));
}

TEST(Rope, DynamicDecodesAsFarAsAnglesStay) {
  const RopeConfig config{.rope_type = "dynamic", .factor = 4.0, .original_max_position_embeddings = 8};
  RotaryEmbedding rope(config, 8, 64);
  EXPECT_NO_THROW(rope.expect_steady_angles(7, 1));
  EXPECT_NO_THROW(rope.expect_steady_angles(0, 30));
  EXPECT_TRUE(rope.at(row(0, 30), at::kDouble, 30)
                  .cos.equal(RotaryEmbedding(config, 8, 64).at(row(0, 30), at::kDouble).cos));
  try {
    rope.expect_steady_angles(8, 1);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("original_max_position_embeddings = 8"), std::string::npos);
  }
  EXPECT_NO_THROW(RotaryEmbedding({}, 8, 64).expect_steady_angles(100, 3));
}

RopeConfig longrope() {
  return {.rope_type = "longrope",
          .factor = 4.0,
          .original_max_position_embeddings = 8,
          .short_factor = {1.0, 1.25, 2.0, 4.0},
          .long_factor = {1.0, 2.0, 8.0, 10.0}};
}

TEST(Rope, LongropeHasFactorsOfShortAndOfLongSequences) {
  expect_frequencies(longrope(), 8, 64, 8, {1, 0.08, 0.005, 0.00025});
  expect_frequencies(longrope(), 8, 64, 9, {1, 0.05, 0.00125, 0.0001});
  RopeConfig config = longrope();
  RotaryEmbedding rope(config, 8, 64);
  EXPECT_NEAR(rope.attention_factor(), std::sqrt(1.0 + std::log(4.0) / std::log(8.0)), 1e-15);
  config.attention_factor = 1.25;
  EXPECT_EQ(RotaryEmbedding(config, 8, 64).attention_factor(), 1.25);
  config.attention_factor = 0.0;
  config.factor = 1.0;
  EXPECT_EQ(RotaryEmbedding(config, 8, 64).attention_factor(), 1.0);
  // Documents of one row have the angles, and the factor, of their own lengths.
  const Rotation packed = rope.at(at::cat({row(0, 9), row(0, 8)}, 1), at::kDouble);
  EXPECT_LE(relative_error(packed.cos.narrow(1, 0, 9), rope.at(row(0, 9), at::kDouble).cos), 1e-15);
  EXPECT_LE(relative_error(packed.cos.narrow(1, 9, 8), rope.at(row(0, 8), at::kDouble).cos), 1e-15);
  EXPECT_FALSE(rope.at(row(0, 8), at::kDouble, 9).cos.equal(rope.at(row(0, 8), at::kDouble, 8).cos));
}

TEST(Rope, LongropeDecodesOnEitherSideOfTheOriginalLength) {
  RotaryEmbedding rope(longrope(), 8, 64);
  EXPECT_NO_THROW(rope.expect_steady_angles(0, 30));
  EXPECT_NO_THROW(rope.expect_steady_angles(7, 1));
  EXPECT_NO_THROW(rope.expect_steady_angles(9, 20));
  EXPECT_THROW(rope.expect_steady_angles(8, 1), ConfigError);
  EXPECT_THROW(rope.expect_steady_angles(1, 20), ConfigError);
}

std::string error_of(const RopeConfig& config, int64_t head_dim) {
  try {
    RotaryEmbedding(config, head_dim, 64);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(Rope, ErrorsNameTheKey) {
  EXPECT_NE(error_of({}, 7).find("head_dim = 7"), std::string::npos);
  EXPECT_NE(error_of({.rope_type = "yarm"}, 8).find("did you mean `yarn`"), std::string::npos);
  EXPECT_NE(error_of({.rope_type = "linear", .factor = 0.5}, 8).find("rope_scaling.factor"),
            std::string::npos);
  EXPECT_NE(error_of({.rope_type = "dynamic", .factor = 2.0}, 2).find("head_dim"), std::string::npos);
  EXPECT_NE(error_of({.rope_type = "longrope", .factor = 4.0, .short_factor = {1.0}, .long_factor = {1.0}}, 4)
                .find("rope_scaling.short_factor: has 1 numbers, `longrope` needs one for each of 2"),
            std::string::npos);
  EXPECT_NE(error_of({.rope_type = "longrope", .factor = 4.0, .short_factor = {1.0}, .long_factor = {0.0}}, 2)
                .find("rope_scaling.long_factor: has the value 0"),
            std::string::npos);
  EXPECT_NE(
      error_of({.rope_type = "llama3", .factor = 2.0, .low_freq_factor = 4.0}, 8).find("high_freq_factor"),
      std::string::npos);
}

}  // namespace
}  // namespace longreach
