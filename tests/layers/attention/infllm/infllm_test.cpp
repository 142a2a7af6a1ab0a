// InfLLM-V2: the promises of a mechanism, and its choice of blocks by hand.
#include "layers/attention/infllm/infllm.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/config.h"
#include "core/error.h"
#include "layers/attention/mechanisms.h"
#include "tests/support/mechanism_checks.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Named {
  const char* name;
  InfllmConfig config;
};

const std::vector<Named>& configs() {
  static const std::vector<Named> all{
      {"published_ratios",
       {.kernel_size = 8,
        .kernel_stride = 4,
        .block_size = 16,
        .num_blocks = 2,
        .first_blocks = 0,
        .window = 0}},
      {"gated_without_positions",
       {.kernel_size = 4,
        .kernel_stride = 4,
        .block_size = 16,
        .num_blocks = 2,
        .first_blocks = 0,
        .window = 0,
        .rope = false,
        .output_gate = true}},
      {"early_queries_read_all",
       {.kernel_size = 4,
        .kernel_stride = 2,
        .block_size = 16,
        .num_blocks = 2,
        .first_blocks = 0,
        .window = 0,
        .dense_len = 40}},
      {"always_dense", {.window = 128, .dense_len = 1000}},
      {"means_of_three_strides",
       {.kernel_size = 6,
        .kernel_stride = 2,
        .block_size = 16,
        .num_blocks = 1,
        .first_blocks = 0,
        .window = 16}},
  };
  return all;
}

class EveryInfllm : public testing::TestWithParam<Named> {};
INSTANTIATE_TEST_SUITE_P(Infllm, EveryInfllm, testing::ValuesIn(configs()),
                         [](const auto& about) { return about.param.name; });

TEST_P(EveryInfllm, IsCausal) { expect_causal(GetParam().config, small_site()); }
TEST_P(EveryInfllm, DecodesAsForward) { expect_decode_equals_forward(GetParam().config, norm_site()); }
TEST_P(EveryInfllm, PackedDocumentsAreSeparate) {
  expect_packed_equals_separate(GetParam().config, norm_site());
}
TEST_P(EveryInfllm, FusedIsTheFormula) { expect_fused_equals_reference(GetParam().config, norm_site()); }

TEST(Infllm, OfManyBlocksIsTheFormula) {
  expect_fused_equals_reference(configs()[0].config, norm_site(), 150);
  expect_decode_equals_forward(configs()[0].config, small_site(), 150);
}

// Where every block is read the choice cannot be rounded otherwise.
TEST(Infllm, BFloat16IsClose) {
  InfllmConfig config = configs()[0].config;
  config.num_blocks = 3;
  expect_bfloat16_close(config, norm_site());
}

TEST(Infllm, ReadsAllWhereBlocksAreFew) {
  const at::Tensor q = normal({1, 70, 4, 8}, 1), k = normal({1, 70, 2, 8}, 2), v = normal({1, 70, 2, 8}, 3);
  const InfllmConfig some{
      .kernel_size = 8, .kernel_stride = 4, .block_size = 16, .num_blocks = 2, .window = 0};
  InfllmConfig all = some, dense = some;
  all.num_blocks = 5;
  dense.dense_len = 71;
  const at::Tensor whole = infllm_attention_reference(q, k, v, dense);
  EXPECT_LE(relative_error(infllm_attention_reference(q, k, v, all), whole), 1e-14);
  EXPECT_GT(relative_error(infllm_attention_reference(q, k, v, some), whole), 1e-3);
}

std::vector<int32_t> row(const at::Tensor& lists, int64_t query) {
  const at::Tensor one = lists[0][0][query].contiguous();
  return {one.const_data_ptr<int32_t>(), one.const_data_ptr<int32_t>() + one.numel()};
}

// Keys along one axis: a query along it likes blocks by their largest mean of two strides.
TEST(Infllm, ChoosesTheFirstTheLatestAndTheBest) {
  const int64_t tokens = 128;
  const InfllmConfig config{
      .kernel_size = 8, .kernel_stride = 4, .block_size = 16, .num_blocks = 3, .window = 16};
  at::Tensor keys = at::zeros({1, tokens, 1, 4});
  keys.select(3, 0).narrow(1, 52, 8).fill_(3.0f);  // within block 3
  keys.select(3, 0).narrow(1, 76, 8).fill_(2.0f);  // the last stride of block 4 and the first of block 5
  const at::Tensor q = at::full({1, tokens, 1, 4}, 1.0f);
  const at::Tensor lists = infllm_choose(q, infllm_stride_means(keys, config), config, tokens);
  EXPECT_THAT(row(lists, 127), ElementsAre(0, 3, 6, 7));
  EXPECT_THAT(row(lists, 95), ElementsAre(0, 3, 4, 5));
  EXPECT_THAT(row(lists, 79), ElementsAre(0, 1, 3, 4)) << "ties go to the lowest";
  EXPECT_THAT(row(lists, 20), ElementsAre(0, 1, -1, -1));
  // Without the peak of block 3 a window on the border is the best of both its blocks.
  keys.select(3, 0).narrow(1, 52, 8).fill_(0.0f);
  InfllmConfig wider = config;
  wider.num_blocks = 4;
  const at::Tensor border = infllm_choose(q, infllm_stride_means(keys, wider), wider, tokens);
  EXPECT_THAT(row(border, 127), ElementsAre(0, 4, 5, 6, 7));
}

TEST(Infllm, MeansAreThoseOfCompleteStrides) {
  const InfllmConfig config{.kernel_size = 4, .kernel_stride = 2};
  const at::Tensor k = at::arange(14, at::kFloat).view({1, 7, 1, 2});
  const at::Tensor means = infllm_stride_means(k, config);
  EXPECT_TRUE(at::equal(means.flatten(), at::tensor({1.0f, 2.0f, 5.0f, 6.0f, 9.0f, 10.0f})));
  const at::Tensor documents = at::tensor({0, 3, 7}, at::kInt);
  const at::Tensor packed = infllm_stride_means(k, config, documents);
  EXPECT_TRUE(at::equal(packed.flatten(), at::tensor({1.0f, 2.0f, 7.0f, 8.0f, 11.0f, 12.0f})));
}

TEST(Infllm, NotANumberIsSaid) {
  at::Tensor q = normal({1, 200, 1, 4}, 1, at::kFloat), k = normal({1, 200, 1, 4}, 2, at::kFloat);
  const InfllmConfig config{
      .kernel_size = 8, .kernel_stride = 4, .block_size = 16, .num_blocks = 2, .window = 0};
  q.select(1, 150).fill_(std::nanf(""));
  EXPECT_THROW(infllm_choose(q, infllm_stride_means(k, config), config, 200), DataError);
}

// The cache holds keys and values, and a mean of two key heads of 8 floats for every stride.
TEST(Infllm, TheCacheGrowsByKeysAndMeans) {
  const InfllmConfig config = configs()[0].config;
  const int64_t row = 2 * 8 * 4;
  EXPECT_EQ(decode_bytes(config, small_site(), 5), row * (2 * 256 + 16));
  EXPECT_EQ(decode_bytes(config, small_site(), 100), row * (2 * 256 + 32));
  EXPECT_EQ(overflow_message(config, small_site()),
            "decoding: 3 tokens seen and 3 more do not fit max_tokens = 4");
}

std::string refusal(const std::string& options) {
  AttentionEntry entry;
  try {
    ConfigDocument::from_text("kind = \"infllm\"\n" + options, "x.toml").read(fields_of(entry));
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(Infllm, SizesThatDoNotFitAreRefusedByName) {
  EXPECT_EQ(refusal(""), "");
  EXPECT_THAT(refusal("block_size = 48"), HasSubstr("block_size: found 48, expected 16, 32, 64 or 128"));
  EXPECT_THAT(refusal("kernel_size = 24"),
              HasSubstr("kernel_size: found 24, expected a multiple of kernel_stride = 16"));
  EXPECT_THAT(refusal("kernel_stride = 32\nblock_size = 16"),
              HasSubstr("block_size: found 16, expected a multiple of kernel_stride = 32"));
  EXPECT_THAT(refusal("window = 100"),
              HasSubstr("window: found 100, expected a multiple of block_size = 64"));
  EXPECT_THAT(refusal("num_blocks = 1"),
              HasSubstr("num_blocks: found 1, expected at least the own block and first_blocks = 1"));
}

}  // namespace
}  // namespace longreach
