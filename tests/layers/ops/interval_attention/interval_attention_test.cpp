// Fused interval attention against its float64 reference, and the properties that no tolerance hides.
#include "layers/ops/interval_attention/interval_attention.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>

#include <random>

#include "layers/ops/common/softmax_tensors.h"
#include "layers/ops/interval_attention/kernels.h"
#include "tests/layers/ops/common/huge_scores.h"
#include "tests/layers/ops/common/nan_cases.h"
#include "tests/layers/ops/cpu/cpu_target.h"
#include "tests/layers/ops/interval_attention/cases.h"
#include "tests/support/errors.h"

namespace longreach::test {
namespace {

void expect_matches_in_both_dtypes(const AttentionCase& c) {
  expect_matches_reference(c, at::kFloat);
  expect_matches_reference(c, at::kBFloat16);
}

TEST(IntervalAttention, LengthsAroundTheTiles) {
  for (const int64_t length : {0, 1, 63, 64, 65, 200, 257}) {
    AttentionCase c{
        .batch = 1, .queries = length, .keys = length, .heads = 2, .key_heads = 2, .value_heads = 2};
    expect_matches_in_both_dtypes(c);
    c.mask.causal = false;
    expect_matches_in_both_dtypes(c);
  }
}

TEST(IntervalAttention, FewerAndMoreQueriesThanKeys) {
  for (const auto& [queries, keys] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 150}, {70, 200}, {200, 70}, {5, 0}, {0, 9}}) {
    AttentionCase c{.queries = queries, .keys = keys};
    expect_matches_in_both_dtypes(c);
    c.mask.window = 20;
    expect_matches_in_both_dtypes(c);
  }
}

TEST(IntervalAttention, HeadSizes) {
  for (const auto& [qk, v] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 5}, {17, 40}, {64, 64}, {80, 33}, {256, 512}})
    expect_matches_in_both_dtypes({.batch = 1,
                                   .queries = 70,
                                   .keys = 70,
                                   .heads = 2,
                                   .key_heads = 1,
                                   .value_heads = 2,
                                   .qk_size = qk,
                                   .v_size = v});
}

TEST(IntervalAttention, GroupedHeadsWithDifferentMapsOfKeysAndValues) {
  for (const auto& [k, v] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {2, 2}, {1, 6}, {2, 3}, {6, 2}})
    expect_matches_in_both_dtypes({.queries = 90, .keys = 90, .heads = 6, .key_heads = k, .value_heads = v});
}

TEST(IntervalAttention, WindowsAndSinks) {
  for (const int64_t window : {1, 16, 64, 100})
    for (const int64_t sinks : {0, 1, 4, 70}) {
      AttentionCase c{.batch = 1, .queries = 300, .keys = 300, .heads = 2, .key_heads = 1, .value_heads = 1};
      c.mask.window = window;
      c.mask.sinks = sinks;
      expect_matches_in_both_dtypes(c);
      c.mask.causal = false;
      expect_matches_reference(c, at::kFloat);
    }
}

TEST(IntervalAttention, ExplicitIntervalsAndEmptyRows) {
  for (const int64_t batches : {1, 2})
    for (const int64_t heads : {1, 2, 4})
      for (const int64_t sinks : {0, 3}) {
        AttentionCase c{.queries = 130, .keys = 170, .heads = 4, .key_heads = 2, .value_heads = 4};
        random_intervals(c, batches, heads, 7);
        c.mask.sinks = sinks;
        expect_matches_in_both_dtypes(c);
      }
}

TEST(IntervalAttention, RowsThatSeeNothing) {
  const at::Tensor q = normal({1, 5, 1, 8}, 1, at::kFloat, true),
                   k = normal({1, 9, 1, 8}, 2, at::kFloat, true);
  IntervalMask mask;
  mask.lo = int_tensor({0, 4, 9, 3, -5}, {1, 1, 5});
  mask.hi = int_tensor({9, 4, 20, 2, 0}, {1, 1, 5});
  for (const auto attention : {&interval_attention, &interval_attention_reference}) {
    const auto [o, lse] = attention(q, k, k, mask, std::nullopt);
    EXPECT_EQ(o.narrow(1, 1, 4).abs().max().item<float>(), 0.0f);
    EXPECT_TRUE(lse.narrow(2, 1, 4).isneginf().all().item<bool>());
    EXPECT_TRUE(lse.narrow(2, 0, 1).isfinite().all().item<bool>());
    const auto grads = torch::autograd::grad({o}, {q, k}, {normal(o.sizes(), 3, at::kFloat)});
    EXPECT_EQ(grads[0].narrow(1, 1, 4).abs().max().item<float>(), 0.0f);
    EXPECT_TRUE(grads[1].isfinite().all().item<bool>());
  }
}

TEST(IntervalAttention, PackedDocuments) {
  AttentionCase c{.batch = 1, .queries = 260, .keys = 300, .heads = 4, .key_heads = 2, .value_heads = 1};
  c.mask.cu_seqlens_q = int_tensor({0, 0, 70, 71, 200, 200, 260}, {7});
  c.mask.cu_seqlens_k = int_tensor({0, 5, 70, 90, 220, 220, 300}, {7});
  expect_matches_in_both_dtypes(c);
  c.mask.window = 30;
  c.mask.sinks = 2;
  expect_matches_in_both_dtypes(c);
  random_intervals(c, 1, 2, 11);
  expect_matches_in_both_dtypes(c);
}

TEST(IntervalAttention, LargeLogits) {
  AttentionCase c{.batch = 1, .queries = 200, .keys = 200, .qk_size = 64, .v_size = 64, .magnitude = 8.0};
  expect_matches_in_both_dtypes(c);
}

TEST(IntervalAttention, GradientThroughOneOutputOnly) {
  AttentionCase c{.queries = 100, .keys = 100};
  c.gradient_of_lse = false;
  expect_matches_in_both_dtypes(c);
  c.gradient_of_lse = true;
  c.gradient_of_o = false;
  expect_matches_in_both_dtypes(c);
}

TEST(IntervalAttention, NegativeAndZeroScale) {
  const at::Tensor q = normal({1, 80, 2, 16}, 1, at::kFloat), k = normal({1, 80, 2, 16}, 2, at::kFloat);
  for (const double scale : {-0.7, 0.0, 2.0}) {
    const auto fused = interval_attention(q, k, k, {}, scale),
               plain = interval_attention_reference(q, k, k, {}, scale);
    EXPECT_LT(relative_error(fused.o, plain.o), 2e-6) << scale;
    EXPECT_LT(relative_error(fused.lse, plain.lse), 2e-6) << scale;
  }
}

TEST(IntervalAttention, StridedInputs) {
  const at::Tensor q = normal({2, 4, 90, 24}, 1, at::kFloat), k = normal({2, 2, 90, 24}, 2, at::kFloat);
  const auto dense = interval_attention(q.transpose(1, 2).contiguous(), k.transpose(1, 2).contiguous(),
                                        k.transpose(1, 2).contiguous());
  const auto strided = interval_attention(q.transpose(1, 2), k.transpose(1, 2), k.transpose(1, 2));
  EXPECT_TRUE(at::equal(dense.o, strided.o));
  const at::Tensor fused_qk = at::cat({q, q}, 3).transpose(1, 2);
  EXPECT_TRUE(at::equal(
      interval_attention(fused_qk.narrow(3, 24, 24), k.transpose(1, 2), k.transpose(1, 2)).o, dense.o));
}

TEST(IntervalAttention, FutureKeysDoNotReachThePast) {
  const at::Tensor q = normal({1, 200, 2, 16}, 1, at::kFloat), k = normal({1, 200, 2, 16}, 2, at::kFloat),
                   changed = k.clone();
  changed.narrow(1, 130, 70).fill_(1e4);
  const auto before = interval_attention(q, k, k), after = interval_attention(q, changed, changed);
  EXPECT_TRUE(at::equal(before.o.narrow(1, 0, 130), after.o.narrow(1, 0, 130)));
  EXPECT_TRUE(at::equal(before.lse.narrow(2, 0, 130), after.lse.narrow(2, 0, 130)));
  EXPECT_FALSE(at::equal(before.o.narrow(1, 130, 70), after.o.narrow(1, 130, 70)));
}

// Calls the kernels on outputs full of NaN: what they leave unwritten stays NaN.
TEST(IntervalAttention, KernelsWriteEveryElement) {
  for (const int64_t size : {16, 20})
    for (const int64_t keys : {0, 100}) {
      const at::Tensor q = normal({1, 100, 2, size}, 1, at::kFloat),
                       k = normal({1, keys, 2, size}, 2, at::kFloat);
      const at::Tensor o = poisoned(q), dq = poisoned(q), dk = poisoned(k), dv = poisoned(k);
      const at::Tensor lse = at::full({1, 2, 100}, std::nan(""), at::kFloat);
      interval::Params params{};
      params.scale = 0.25f;
      params.causal = true, params.window = 9;
      params.documents = 1;
      softmax_tile::set_tensors(params, q, k, k, o, lse);
      interval::forward_cpu(params);
      interval::backward_cpu(params,
                             {params.q, nullptr, strided(dq), strided(dk), strided(dv), params.dtype});
      for (const auto& written : {o, lse, dq, dk, dv}) EXPECT_FALSE(written.isnan().any().item<bool>());
    }
}

// One head is cut into chunks, ten are not.
TEST(IntervalAttention, BitsDoNotDependOnThreads) {
  expect_same_bits_on_two_threads([] {
    std::vector<AttentionResult> results;
    for (const auto dtype : {at::kFloat, at::kBFloat16})
      for (const int64_t heads : {1, 10})
        results.push_back(run_attention({.batch = 1,
                                         .queries = 600,
                                         .keys = 600,
                                         .heads = heads,
                                         .key_heads = heads,
                                         .value_heads = heads},
                                        interval_attention, dtype, dtype));
    return results;
  });
}

TEST(IntervalAttention, ReferenceAgreesWithCentralDifferences) {
  AttentionCase c{.batch = 1,
                  .queries = 7,
                  .keys = 9,
                  .heads = 2,
                  .key_heads = 1,
                  .value_heads = 2,
                  .qk_size = 3,
                  .v_size = 4};
  c.mask.window = 3;
  c.mask.sinks = 1;
  const auto grads = run_attention(c, interval_attention_reference, at::kDouble, at::kDouble);
  const at::Tensor d_o = normal({1, 7, 2, 4}, 16 + 3), d_lse = normal({1, 2, 7}, 16 + 4);
  std::vector<at::Tensor> inputs{normal({1, 7, 2, 3}, 16), normal({1, 9, 1, 3}, 17),
                                 normal({1, 9, 2, 4}, 18)};
  const auto loss = [&] {
    const auto [o, lse] = interval_attention_reference(inputs[0], inputs[1], inputs[2], c.mask);
    return (o * d_o).sum().item<double>() + (lse * d_lse).sum().item<double>();
  };
  for (size_t i = 0; i < inputs.size(); ++i) {
    double* x = inputs[i].data_ptr<double>();
    const at::Tensor gradient = grads[2 + i].contiguous();
    const double* analytic = gradient.const_data_ptr<double>();
    for (int64_t e = 0; e < inputs[i].numel(); ++e) {
      const double before = x[e], step = 1e-5;
      x[e] = before + step;
      const double up = loss();
      x[e] = before - step;
      const double down = loss();
      x[e] = before;
      ASSERT_NEAR((up - down) / (2 * step), analytic[e], 1e-8);
    }
  }
}

AttentionCase random_case(uint64_t seed) { return random_attention_case(seed, 40); }

TEST(IntervalAttention, RandomShapes) {
  for (uint64_t seed = 1; seed <= 200; ++seed)
    expect_matches_reference(random_case(seed), seed % 4 == 0 ? at::kBFloat16 : at::kFloat);
}

TEST_P(CpuTarget, MatchesReference) {
  for_products([](bool first) {
    for (uint64_t seed = 1001; seed <= 1030; ++seed) {
      if (first) expect_matches_reference(random_case(seed), at::kFloat);
      expect_matches_reference(random_case(seed), at::kBFloat16);
    }
    AttentionCase c{.batch = 1,
                    .queries = 257,
                    .keys = 257,
                    .heads = 2,
                    .key_heads = 1,
                    .value_heads = 2,
                    .qk_size = 64,
                    .v_size = 64};
    expect_matches_in_both_dtypes(c);
    c.mask.window = 70;
    c.mask.sinks = 5;
    expect_matches_in_both_dtypes(c);
  });
}

std::vector<IntervalMask> nan_masks() {
  std::vector<IntervalMask> masks(4);
  masks[1].window = 9, masks[1].sinks = 3;
  masks[2].cu_seqlens_q = masks[2].cu_seqlens_k = int_tensor({0, 31, 90, 150}, {4});
  AttentionCase c{.queries = 150, .keys = 150};
  random_intervals(c, 1, 2, 5);
  masks[3] = c.mask;
  return masks;
}

// NaN is the sign that something went wrong: it neither vanishes nor reaches what has nothing to do with it.
TEST_P(CpuTarget, NanIsWhereItIsSeen) {
  const std::vector<IntervalMask> masks = nan_masks();
  for_products([&](bool first) {
    for (const IntervalMask& mask : masks) {
      const at::Tensor visible = interval_mask_matrix(mask, 1, 2, 150, 150)[0];
      const auto run = [&](auto operation) {
        return [&mask, operation](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
          return operation(q, k, v, mask, std::nullopt);
        };
      };
      const auto exact = run(interval_attention_reference), fused = run(interval_attention);
      if (first) expect_nan_at_pairs_that_see_it(visible, 16, at::kFloat, fused, exact);
      if (first) expect_nan_at_pairs_that_see_it(visible, 16, at::kFloat, exact, exact, /*gradients=*/false);
      expect_nan_at_pairs_that_see_it(visible, 16, at::kBFloat16, fused, exact);
    }
  });
}

TEST_P(CpuTarget, HugeScoresWeigh) {
  for_products([&](bool first) {
    for (const IntervalMask& mask : nan_masks()) {
      const at::Tensor visible = interval_mask_matrix(mask, 1, 2, 150, 150)[0];
      const auto run = [&](auto operation) {
        return [&mask, operation](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
          return operation(q, k, v, mask, std::nullopt);
        };
      };
      if (first) expect_huge_scores_weigh(visible, at::kFloat, run(interval_attention));
      if (first) expect_huge_scores_weigh(visible, at::kFloat, run(interval_attention_reference));
      expect_huge_scores_weigh(visible, at::kBFloat16, run(interval_attention));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(IntervalAttention, CpuTarget, cpu_targets(), cpu_target_name);

TEST(IntervalAttention, ErrorsNameTheArgument) {
  const at::Tensor q = normal({2, 5, 4, 8}, 1, at::kFloat), wide = normal({1, 5, 1, 257}, 1, at::kFloat);
  const auto call = [&](const at::Tensor& k, const at::Tensor& v, const IntervalMask& mask = {}) {
    return [&, k, v, mask] { interval_attention(q, k, v, mask); };
  };
  expect_error<ShapeError>("k: shape", call(normal({2, 5, 4, 9}, 1, at::kFloat), q));
  expect_error<ShapeError>("k: 3 heads", call(normal({2, 5, 3, 8}, 1, at::kFloat), q));
  expect_error<ShapeError>("v: shape", call(q, normal({2, 6, 4, 8}, 1, at::kFloat)));
  expect_error<DtypeError>("v: dtype", call(q, q.to(at::kBFloat16)));
  expect_error<DtypeError>("interval_attention_reference", [&] {
    interval_attention(q.to(at::kDouble), q.to(at::kDouble), q.to(at::kDouble));
  });
  expect_error<ShapeError>("q: head dimension 257", [&] { interval_attention(wide, wide, wide); });
  expect_error<ShapeError>("window: -1", call(q, q, {.window = -1}));
  expect_error<ShapeError>("cu_seqlens_k", call(q, q, {.cu_seqlens_q = int_tensor({0, 5}, {2})}));
  expect_error<ShapeError>("hi (lo is given)", call(q, q, {.lo = int_tensor({0, 0, 0, 0, 0}, {1, 1, 5})}));
  expect_error<DtypeError>("lo: dtype", call(q, q, {.lo = normal({1, 1, 5}, 1), .hi = normal({1, 1, 5}, 1)}));
}

}  // namespace
}  // namespace longreach::test
