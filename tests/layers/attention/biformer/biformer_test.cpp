// BiFormer: the promises of a mechanism for the causal form, what is routed where, and the layer over images.
#include "layers/attention/biformer/biformer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "core/error.h"
#include "tests/support/gradients.h"
#include "tests/support/mechanism_checks.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;

// 45 tokens are three regions of 16, the last one short; 100 are seven.
const std::vector<BiformerConfig>& configs() {
  static const std::vector<BiformerConfig> all{{.region = 16, .topk = 2},
                                               {.region = 16, .topk = 1},
                                               {.region = 16, .topk = 9, .rope = false},
                                               {.region = 64, .topk = 2}};
  return all;
}

TEST(Biformer, IsCausal) {
  for (const auto& config : configs()) expect_causal(config, small_site());
}

TEST(Biformer, DecodesAsForward) {
  for (const auto& config : configs()) expect_decode_equals_forward(config, norm_site());
  expect_decode_equals_forward(configs()[0], norm_site(), 100);
}

TEST(Biformer, PackedDocumentsAreSeparate) {
  for (const auto& config : configs()) expect_packed_equals_separate(config, norm_site());
}

TEST(Biformer, FusedIsTheFormula) {
  for (const auto& config : configs()) expect_fused_equals_reference(config, norm_site());
  expect_fused_equals_reference(configs()[0], norm_site(), 130);
}

TEST(Biformer, BFloat16IsClose) { expect_bfloat16_close(configs()[2], norm_site()); }

constexpr Implementation kBoth[] = {Implementation::fused, Implementation::reference};

// Keys of region j point along axis j; the first query of region 4 points along axis 1, all its others along
// 2.
struct Planted {
  at::Tensor q = normal({1, 80, 2, 8}, 1, at::kFloat) * 0.01, k = normal({1, 80, 1, 8}, 2, at::kFloat) * 0.01;
  Planted() {
    for (int64_t region = 0; region < 5; ++region) k.narrow(1, 16 * region, 16).select(3, region).fill_(1.0f);
    q.narrow(1, 64, 1).select(3, 1).fill_(1.0f);
    q.narrow(1, 65, 15).select(3, 2).fill_(1.0f);
  }
};

TEST(Biformer, ARegionGoesWhereItsFirstQueryPoints) {
  const Planted planted;
  for (const auto implementation : kBoth) {
    const auto chosen = [&](const BiformerRouting& routing) {
      const at::Tensor lists =
          biformer_attention(planted.q, planted.k, planted.k, routing, {}, {}, implementation).indices;
      return lists[0][0][4];
    };
    EXPECT_TRUE(at::equal(chosen({.region = 16, .topk = 2}), at::tensor({1, 4}, at::kInt)));
    EXPECT_TRUE(at::equal(chosen({.region = 16, .topk = 2, .query = BiformerRouting::Query::mean}),
                          at::tensor({2, 4}, at::kInt)));
    EXPECT_TRUE(at::equal(chosen({.region = 16, .topk = 1}), at::tensor({4}, at::kInt)));
    EXPECT_TRUE(
        at::equal(chosen({.region = 16, .topk = 1, .causal = false, .query = BiformerRouting::Query::mean}),
                  at::tensor({2}, at::kInt)));
  }
}

// Why the mean of a region's queries cannot route a causal model: a later query moves an earlier one's keys.
TEST(Biformer, MeansOfQueriesLeakAndFirstQueriesDoNot) {
  for (const auto query : {BiformerRouting::Query::mean, BiformerRouting::Query::first}) {
    const BiformerRouting routing{.region = 16, .topk = 2, .query = query};
    Planted planted;
    const auto o = [&] {
      return biformer_attention(planted.q, planted.k, planted.k, routing, {}, {}, Implementation::fused)
          .o.narrow(1, 64, 1)
          .clone();
    };
    const at::Tensor before = o();
    planted.q.narrow(1, 65, 15).select(3, 0).fill_(50.0f);
    EXPECT_EQ(at::equal(before, o()), query == BiformerRouting::Query::first);
  }
}

TEST(Biformer, RoutingHasNoGradientAndAttentionHas) {
  const at::Tensor k = normal({1, 64, 1, 8}, 3, at::kFloat, true),
                   v = normal({1, 64, 1, 8}, 4, at::kFloat, true),
                   q = normal({1, 64, 1, 8}, 5, at::kFloat, true);
  const BiformerOutput out =
      biformer_attention(q, k, v, {.region = 16, .topk = 2}, {}, {}, Implementation::fused);
  const auto grads = torch::autograd::grad({out.o.narrow(1, 48, 16)}, {v}, {at::full({1, 16, 1, 8}, 1.0f)});
  // Keys of regions that the last one did not choose get nothing.
  for (int64_t region = 0; region < 4; ++region) {
    const bool chosen = (out.indices[0][0][3] == region).any().item<bool>();
    EXPECT_EQ(grads[0].narrow(1, 16 * region, 16).abs().max().item<float>() > 0, chosen) << region;
  }
}

BiformerImageWeights image_weights(int64_t width, at::ScalarType dtype) {
  const auto draw = [&](at::IntArrayRef shape, uint64_t seed) {
    return normal(shape, seed).mul(0.3).to(dtype);
  };
  return {draw({3 * width, width}, 1), draw({3 * width}, 2), draw({width, 1, 3, 3}, 3), draw({width}, 4),
          draw({width, width}, 5),     draw({width}, 6)};
}

TEST(BiformerImage, FusedIsTheFormulaAndCentralDifferences) {
  const at::Tensor x = normal({2, 6, 9, 12}, 7);
  for (const bool soft : {false, true}) {
    BiformerImageOptions options{.num_heads = 3, .n_win = 3, .topk = 2, .soft_routing = soft};
    const auto fused = biformer_image(x.to(at::kFloat), image_weights(12, at::kFloat), options);
    options.implementation = Implementation::reference;
    const auto exact = biformer_image(x, image_weights(12, at::kDouble), options);
    EXPECT_LE(relative_error(fused.y, exact.y), 2e-6);
    EXPECT_LE(relative_error(fused.weights, exact.weights), 2e-6);
    EXPECT_TRUE(at::equal(fused.regions, exact.regions));
    const BiformerImageWeights w = image_weights(12, at::kDouble);
    EXPECT_LE(gradient_error(
                  [&](const std::vector<at::Tensor>& in) {
                    return biformer_image(in[0], {in[1], w.qkv_bias, in[2], w.lepe_bias, in[3], w.wo_bias},
                                          options)
                        .y;
                  },
                  {x, w.qkv, w.lepe, w.wo}),
              1e-5);
  }
}

// With every region chosen and no local convolution this is dense attention, whatever the routing.
TEST(BiformerImage, AllRegionsAreDenseAttention) {
  const at::Tensor x = normal({1, 4, 6, 8}, 8);
  BiformerImageWeights weights = image_weights(8, at::kDouble);
  weights.lepe.zero_(), weights.lepe_bias.zero_();
  const BiformerImageOptions all{
      .num_heads = 2, .n_win = 2, .topk = 4, .implementation = Implementation::reference};
  BiformerImageOptions whole = all;
  whole.n_win = whole.topk = 1;
  EXPECT_LE(relative_error(biformer_image(x, weights, all).y, biformer_image(x, weights, whole).y), 1e-12);
}

TEST(BiformerImage, ReadsTheRegionsThatItIsGiven) {
  const at::Tensor x = normal({1, 6, 6, 8}, 8);
  const BiformerImageWeights weights = image_weights(8, at::kDouble);
  BiformerImageOptions options{
      .num_heads = 2, .n_win = 3, .topk = 2, .implementation = Implementation::reference};
  const auto routed = biformer_image(x, weights, options);
  options.regions = routed.regions.flip(-1);
  const auto turned = biformer_image(x, weights, options);
  EXPECT_LE(relative_error(turned.y, routed.y), 1e-12);
  EXPECT_LE(relative_error(turned.weights.flip(-1), routed.weights), 1e-12);
  options.regions = (routed.regions + 1).remainder(9);
  EXPECT_GT(relative_error(biformer_image(x, weights, options).y, routed.y), 1e-3);
  options.regions = routed.regions + 9;
  EXPECT_THROW(biformer_image(x, weights, options), ShapeError);
}

TEST(BiformerImage, BadArguments) {
  const at::Tensor x = normal({1, 6, 6, 8}, 8, at::kFloat);
  const BiformerImageWeights weights = image_weights(8, at::kFloat);
  EXPECT_THROW(biformer_image(x, weights, {.num_heads = 3, .n_win = 2}), ConfigError);
  EXPECT_THROW(biformer_image(x, weights, {.num_heads = 2, .n_win = 4}), ConfigError);
  EXPECT_THROW(biformer_image(x, weights, {.num_heads = 2, .n_win = 2, .topk = 5}), ConfigError);
  EXPECT_THROW(biformer_image(x, weights, {.num_heads = 2, .n_win = 2, .topk = 0}), ConfigError);
}

}  // namespace
}  // namespace longreach
