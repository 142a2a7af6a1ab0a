// Fused block attention against its float64 reference, and the properties that no tolerance hides.
#include "layers/ops/block_attention/block_attention.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>

#include "layers/ops/block_attention/kernels.h"
#include "layers/ops/common/softmax_tensors.h"
#include "layers/ops/interval_attention/interval_attention.h"
#include "tests/layers/ops/block_attention/cases.h"
#include "tests/layers/ops/common/huge_scores.h"
#include "tests/layers/ops/common/nan_cases.h"
#include "tests/layers/ops/cpu/cpu_target.h"
#include "tests/support/errors.h"
#include "tests/support/gradients.h"

namespace longreach::test {
namespace {

TEST(BlockAttention, AllBlockSizes) {
  for (const int64_t key_block : {16, 32, 64, 128}) {
    for (const int64_t query_block : {1, 16, 64, 4096}) {
      BlockCase c{.queries = 161, .keys = 161, .query_block = query_block, .key_block = key_block};
      c.seed = static_cast<uint64_t>(query_block + key_block);
      expect_matches_reference(c, at::kFloat);
      c.causal = false;
      expect_matches_reference(c, at::kBFloat16);
    }
  }
}

TEST(BlockAttention, LengthsAroundTheTiles) {
  for (const int64_t length : {0, 1, 15, 63, 64, 65, 129, 257})
    expect_matches_in_both_dtypes({.queries = length, .keys = length, .density = 0.8});
}

TEST(BlockAttention, FewerAndMoreQueriesThanKeys) {
  for (const auto& [queries, keys] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 150}, {70, 200}, {200, 70}, {5, 0}, {0, 9}})
    expect_matches_in_both_dtypes({.batch = 2, .queries = queries, .keys = keys, .density = 0.8});
}

TEST(BlockAttention, HeadSizes) {
  for (const auto& [qk, v] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 5}, {17, 40}, {64, 64}, {80, 33}, {256, 512}})
    expect_matches_in_both_dtypes({.queries = 100, .keys = 100, .qk_size = qk, .v_size = v});
}

// One list for all heads, one a key head, one a query head, and maps that no group of heads shares.
TEST(BlockAttention, HeadsOfListsKeysAndValues) {
  for (const int64_t lists : {1, 2, 3, 6})
    for (const auto& [k, v] :
         std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {2, 2}, {1, 6}, {2, 3}, {6, 2}})
      for (const int64_t query_block : {4, 64})
        expect_matches_reference(
            {.batch = 2,
             .queries = 90,
             .keys = 90,
             .heads = 6,
             .key_heads = k,
             .value_heads = v,
             .list_batches = 1 + lists % 2,
             .list_heads = lists,
             .query_block = query_block,
             .key_block = 16,
             .statistics = query_block == 4 ? BlockStatistics::per_list : BlockStatistics::per_head},
            at::kFloat);
}

TEST(BlockAttention, OneTokenAndItsWholeGroup) {
  for (const int64_t group : {1, 4, 16, 70})
    expect_matches_in_both_dtypes({.queries = 70,
                                   .keys = 70,
                                   .heads = 2 * group,
                                   .key_heads = 2,
                                   .value_heads = 2,
                                   .list_heads = 2,
                                   .query_block = 1,
                                   .key_block = 16});
}

TEST(BlockAttention, PackedDocuments) {
  for (const int64_t query_block : {1, 16, 64})
    expect_matches_in_both_dtypes({.queries = 260,
                                   .keys = 300,
                                   .query_block = query_block,
                                   .key_block = 32,
                                   .density = 0.7,
                                   .cu_seqlens_q = int_tensor({0, 0, 70, 71, 200, 200, 260}, {7}),
                                   .cu_seqlens_k = int_tensor({0, 5, 70, 90, 220, 220, 300}, {7})});
}

TEST(BlockAttention, LargeLogits) {
  expect_matches_in_both_dtypes(
      {.queries = 200, .keys = 200, .qk_size = 64, .v_size = 64, .density = 0.8, .magnitude = 8.0});
}

TEST(BlockAttention, GradientThroughOneOutputOnly) {
  BlockCase c{.queries = 100, .keys = 100};
  c.gradient_of_lse = false;
  expect_matches_in_both_dtypes(c);
  c.gradient_of_lse = true;
  c.gradient_of_o = false;
  expect_matches_in_both_dtypes(c);
}

TEST(BlockAttention, NegativeAndZeroScale) {
  const BlockLists lists = random_lists({.queries = 80, .keys = 80, .list_heads = 1});
  const at::Tensor q = normal({1, 80, 2, 16}, 1, at::kFloat), k = normal({1, 80, 2, 16}, 2, at::kFloat);
  for (const double scale : {-0.7, 0.0, 2.0}) {
    const auto fused = block_attention(q, k, k, lists, {.scale = scale}),
               plain = block_attention_reference(q, k, k, lists, {.scale = scale});
    EXPECT_LT(relative_error(fused.o, plain.o), 2e-6) << scale;
    EXPECT_LT(relative_error(fused.lse.exp(), plain.lse.exp()), 5e-6) << scale;
  }
}

TEST(BlockAttention, RowsThatSeeNothing) {
  // Row 1 lists nothing, row 2 a block of the future; row 0 sees itself.
  const BlockLists lists{
      .indices = int_tensor({0, -1, -1, -1, 3, -1, 0, 3}, {1, 1, 4, 2}), .query_block = 16, .key_block = 16};
  const at::Tensor q = normal({1, 64, 2, 8}, 1, at::kFloat, true),
                   k = normal({1, 64, 1, 8}, 2, at::kFloat, true);
  for (const auto attention : {&block_attention, &block_attention_reference}) {
    const auto out = attention(q, k, k, lists, {.statistics = BlockStatistics::per_list});
    EXPECT_EQ(out.o.narrow(1, 16, 32).abs().max().item<float>(), 0.0f);
    EXPECT_TRUE(out.lse.narrow(2, 16, 32).isneginf().all().item<bool>());
    EXPECT_TRUE(out.lse.narrow(2, 48, 16).isfinite().all().item<bool>());
    EXPECT_EQ(out.block_max.narrow(2, 1, 2).abs().max().item<float>(), 0.0f);
    EXPECT_NEAR(out.block_sum.select(2, 0).sum().item<float>(), 32.0, 1e-4);  // 16 queries, 2 heads
    const auto grads = torch::autograd::grad({out.o}, {q, k}, {normal(out.o.sizes(), 3, at::kFloat)});
    EXPECT_EQ(grads[0].narrow(1, 16, 32).abs().max().item<float>(), 0.0f);
    EXPECT_EQ(grads[1].narrow(1, 16, 32).abs().max().item<float>(), 0.0f);
    EXPECT_TRUE(grads[1].isfinite().all().item<bool>());
  }
}

// With every causal block listed it is dense causal attention, and the sums of P are of whole rows.
TEST(BlockAttention, EveryBlockListedIsDenseAttention) {
  for (const int64_t length : {300, 517}) {
    const int64_t blocks = ceil_div(length, 64);
    const BlockLists lists{.indices = at::arange(blocks, at::kInt).expand({1, 1, blocks, blocks})};
    const at::Tensor q = normal({2, length, 4, 32}, 1, at::kFloat, true),
                     k = normal({2, length, 2, 32}, 2, at::kFloat, true),
                     v = normal({2, length, 2, 48}, 3, at::kFloat, true);
    const auto listed = block_attention(q, k, v, lists, {.statistics = BlockStatistics::per_head});
    const auto dense = interval_attention(q, k, v);
    EXPECT_LT(relative_error(listed.o, dense.o), 1e-6);
    EXPECT_LT(relative_error(listed.lse, dense.lse), 1e-6);
    const at::Tensor d_o = normal(dense.o.sizes(), 4, at::kFloat);
    const auto mine = torch::autograd::grad({listed.o}, {q, k, v}, {d_o}),
               theirs = torch::autograd::grad({dense.o}, {q, k, v}, {d_o});
    for (size_t i = 0; i < mine.size(); ++i) EXPECT_LT(relative_error(mine[i], theirs[i]), 3e-6) << i;
    const at::Tensor sums = listed.block_sum.sum(-1);  // queries of each block
    EXPECT_LT((sums.narrow(2, 0, blocks - 1) - 64).abs().max().item<float>(), 1e-3);
    EXPECT_LT((sums.select(2, blocks - 1) - (length - 64 * (blocks - 1))).abs().max().item<float>(), 1e-3);
    EXPECT_FALSE(listed.block_max.requires_grad());
  }
}

TEST(BlockAttention, StridedInputs) {
  const BlockLists lists = random_lists({.queries = 90, .keys = 90});
  const at::Tensor q = normal({2, 4, 90, 24}, 1, at::kFloat), k = normal({2, 2, 90, 24}, 2, at::kFloat);
  const auto dense = block_attention(q.transpose(1, 2).contiguous(), k.transpose(1, 2).contiguous(),
                                     k.transpose(1, 2).contiguous(), lists);
  const auto strided = block_attention(q.transpose(1, 2), k.transpose(1, 2), k.transpose(1, 2), lists);
  EXPECT_TRUE(at::equal(dense.o, strided.o));
  const at::Tensor fused_qk = at::cat({q, q}, 3).transpose(1, 2);
  EXPECT_TRUE(at::equal(
      block_attention(fused_qk.narrow(3, 24, 24), k.transpose(1, 2), k.transpose(1, 2), lists).o, dense.o));
}

TEST(BlockAttention, OrderOfEntriesAndPaddingDoNotMatter) {
  BlockLists lists = random_lists({.queries = 300, .keys = 300, .key_block = 32});
  const at::Tensor q = normal({1, 300, 4, 16}, 1, at::kFloat), k = normal({1, 300, 2, 16}, 2, at::kFloat);
  const auto shuffled = block_attention(q, k, k, lists);
  lists.indices = std::get<0>(lists.indices.sort(-1));
  EXPECT_LT(relative_error(shuffled.o, block_attention(q, k, k, lists).o), 1e-6);
}

TEST(BlockAttention, UnlistedAndFutureKeysReachNothing) {
  const BlockLists lists{.indices = int_tensor({0, 3, 0, 1, 0, 2, 3, 0}, {1, 1, 4, 2})};
  const at::Tensor q = normal({1, 256, 2, 16}, 1, at::kFloat), k = normal({1, 256, 2, 16}, 2, at::kFloat),
                   changed = k.clone();
  changed.narrow(1, 64, 64).fill_(1e4);  // block 1: row 1 alone lists it
  changed.narrow(1, 230, 26).fill_(-1e4);
  const auto before = block_attention(q, k, k, lists), after = block_attention(q, changed, changed, lists);
  for (const auto& [first, count] : std::vector<std::pair<int64_t, int64_t>>{{0, 64}, {128, 102}}) {
    EXPECT_TRUE(at::equal(before.o.narrow(1, first, count), after.o.narrow(1, first, count))) << first;
    EXPECT_TRUE(at::equal(before.lse.narrow(2, first, count), after.lse.narrow(2, first, count))) << first;
  }
  EXPECT_FALSE(at::equal(before.o.narrow(1, 64, 64), after.o.narrow(1, 64, 64)));
}

// Calls the kernels on outputs full of NaN: what they leave unwritten stays NaN.
TEST(BlockAttention, KernelsWriteEveryElement) {
  for (const int64_t size : {16, 20})
    for (const int64_t keys : {0, 100})
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        const at::Tensor q = normal({1, 100, 2, size}, 1, dtype), k = normal({1, keys, 2, size}, 2, dtype);
        const at::Tensor o = poisoned(q), dq = poisoned(q), dk = poisoned(k), dv = poisoned(k);
        const at::Tensor lse = at::full({1, 2, 100}, std::nan(""), at::kFloat);
        const at::Tensor largest = at::full({1, 2, 4, 2}, std::nan(""), at::kFloat), sum = poisoned(largest);
        const at::Tensor indices = keys == 0 ? at::full({1, 1, 4, 2}, -1, at::kInt)
                                             : int_tensor({-1, -1, 0, -1, 1, 3, 0, 2}, {1, 1, 4, 2});
        const PackedDocument document{0, 100, 0, keys, 0, 4};
        block::Params params{};
        params.scale = 0.25f;
        params.causal = true;
        params.query_block = params.key_block = 32;
        params.indices = indices.const_data_ptr<int32_t>();
        params.list_batches = params.list_heads = 1;
        params.rows = 4, params.slots = 2;
        params.documents = &document, params.document_count = 1;
        params.block_max = largest.data_ptr<float>(), params.block_sum = sum.data_ptr<float>();
        softmax_tile::set_tensors(params, q, k, k, o, lse);
        block::forward_cpu(params);
        block::backward_cpu(params, {params.q, nullptr, strided(dq), strided(dk), strided(dv), params.dtype});
        for (const auto& written : {o, lse, dq, dk, dv, largest, sum})
          EXPECT_FALSE(written.isnan().any().item<bool>()) << size << ' ' << keys << ' ' << dtype;
      }
}

// One head is cut into chunks, ten are not.
TEST(BlockAttention, BitsDoNotDependOnThreads) {
  expect_same_bits_on_two_threads([] {
    std::vector<AttentionResult> results;
    for (const auto dtype : {at::kFloat, at::kBFloat16})
      for (const int64_t heads : {1, 10})
        for (const int64_t query_block : {1, 16, 64})
          for (const auto statistics : {BlockStatistics::none, BlockStatistics::per_list})
            results.push_back(run_block_attention({.queries = 600,
                                                   .keys = 600,
                                                   .heads = heads,
                                                   .key_heads = heads,
                                                   .value_heads = heads,
                                                   .list_heads = 1,
                                                   .query_block = query_block,
                                                   .statistics = statistics},
                                                  block_attention, dtype, dtype));
    return results;
  });
}

TEST(BlockAttention, ReferenceAgreesWithCentralDifferences) {
  for (const bool causal : {true, false}) {
    const BlockCase c{.queries = 40, .keys = 50, .key_block = 16, .density = 0.9, .causal = causal};
    BlockLists lists = random_lists(c);
    lists.indices.select(3, 0).zero_();
    lists.indices = lists.indices.where(
        (lists.indices != 0).logical_or(at::arange(lists.indices.size(3)) == 0), at::full({}, -1, at::kInt));
    const auto f = [&](const std::vector<at::Tensor>& x) {
      const auto out = block_attention_reference(x[0], x[1], x[2], lists);
      return at::cat({out.o.flatten(), out.lse.flatten()});
    };
    EXPECT_LT(
        gradient_error(f, {normal({1, 40, 4, 16}, 1), normal({1, 50, 2, 16}, 2), normal({1, 50, 2, 16}, 3)}),
        1e-7);
  }
}

TEST(BlockAttention, RandomShapes) {
  for (uint64_t seed = 1; seed <= 200; ++seed)
    expect_matches_reference(random_block_case(seed), seed % 4 == 0 ? at::kBFloat16 : at::kFloat);
}

TEST_P(CpuTarget, MatchesReference) {
  for_products([](bool first) {
    for (uint64_t seed = 1001; seed <= 1030; ++seed) {
      if (first) expect_matches_reference(random_block_case(seed), at::kFloat);
      expect_matches_reference(random_block_case(seed), at::kBFloat16);
    }
    expect_matches_in_both_dtypes({.queries = 257, .keys = 257, .qk_size = 64, .v_size = 64});
  });
}

std::vector<BlockCase> nan_cases() {
  std::vector<BlockCase> cases{
      {.list_heads = 1, .query_block = 64, .key_block = 64, .density = 0.7},
      {.list_heads = 2, .query_block = 1, .key_block = 16, .density = 0.4},
      {.list_heads = 1, .query_block = 48, .key_block = 32, .density = 0.7, .causal = false},
      {.list_heads = 2,
       .query_block = 16,
       .key_block = 128,
       .density = 0.7,
       .cu_seqlens_q = int_tensor({0, 31, 90, 150}, {4}),
       .cu_seqlens_k = int_tensor({0, 31, 90, 150}, {4})}};
  for (BlockCase& c : cases) c.queries = c.keys = 150, c.heads = 2;
  return cases;
}

// f(lists, which pairs see each other, dtype) for every case; float32 with the first way to multiply bfloat16
// alone.
template <class F>
void for_nan_cases(bool first, const F& f) {
  for (const BlockCase& c : nan_cases()) {
    SCOPED_TRACE(c.name());
    const BlockLists lists = random_lists(c);
    const at::Tensor visible = block_mask_matrix(lists, 1, 2, 150, 150)[0];
    if (first) f(lists, visible, at::kFloat);
    f(lists, visible, at::kBFloat16);
  }
}

// NaN is the sign that something went wrong: it neither vanishes nor reaches what has nothing to do with it.
TEST_P(CpuTarget, NanIsWhereItIsSeen) {
  const auto expect = [](const BlockLists& lists, const at::Tensor& visible, at::ScalarType dtype) {
    const auto run = [&](auto operation) {
      return [&lists, operation](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
        return operation(q, k, v, lists, BlockAttentionOptions{});
      };
    };
    expect_nan_at_pairs_that_see_it(visible, 16, dtype, run(block_attention), run(block_attention_reference));
  };
  for_products([&](bool first) { for_nan_cases(first, expect); });
}

TEST_P(CpuTarget, HugeScoresWeigh) {
  const auto expect = [](const BlockLists& lists, const at::Tensor& visible, at::ScalarType dtype) {
    expect_huge_scores_weigh(visible, dtype,
                             [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
                               const BlockAttentionOptions options{.statistics = BlockStatistics::per_head};
                               const auto out = block_attention(q, k, v, lists, options);
                               if (dtype == at::kBFloat16) return out;
                               const auto wanted = block_attention_reference(
                                   q.to(at::kDouble), k.to(at::kDouble), v.to(at::kDouble), lists, options);
                               EXPECT_LE(relative_error(out.block_max, wanted.block_max), 1e-5);
                               EXPECT_LE(relative_error(out.block_sum, wanted.block_sum), 1e-5);
                               return out;
                             });
  };
  for_products([&](bool first) { for_nan_cases(first, expect); });
}

TEST_P(CpuTarget, StatisticsKeepNan) {
  BlockCase c{.queries = 150,
              .keys = 150,
              .heads = 2,
              .key_heads = 1,
              .value_heads = 1,
              .query_block = 16,
              .key_block = 16};
  const BlockLists lists = random_lists(c);
  const at::Tensor q = normal({1, 150, 2, 8}, 1, at::kFloat), k = normal({1, 150, 1, 8}, 2, at::kFloat);
  k.select(1, 70).fill_(std::nan(""));
  for (const auto statistics : {BlockStatistics::per_head, BlockStatistics::per_list}) {
    const auto found = block_attention(q, k, k, lists, {.statistics = statistics}),
               exact = block_attention_reference(q.to(at::kDouble), k.to(at::kDouble), k.to(at::kDouble),
                                                 lists, {.statistics = statistics});
    for (const auto& [a, b] :
         {std::pair{found.block_max, exact.block_max}, {found.block_sum, exact.block_sum}}) {
      EXPECT_TRUE(a.isnan().equal(b.isnan()));
      EXPECT_TRUE(b.isnan().any().item<bool>());
      EXPECT_LE(relative_error(a.nan_to_num(), b.nan_to_num()), 5e-6);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(BlockAttention, CpuTarget, cpu_targets(), cpu_target_name);

TEST(BlockAttention, ErrorsNameTheArgument) {
  const at::Tensor q = normal({1, 100, 4, 8}, 1, at::kFloat);
  const auto call = [&](const std::vector<int32_t>& entries, at::IntArrayRef shape, int64_t key_block = 64) {
    return [=, shape = shape.vec()] {
      block_attention(q, q, q, {.indices = int_tensor(entries, shape), .key_block = key_block});
    };
  };
  expect_error<ShapeError>("indices: block 2 in row 1, expected -1 or less than 2",
                           call({0, -1, 0, 2}, {1, 1, 2, 2}));
  expect_error<ShapeError>("indices: block -2 in row 0", call({-2, -1, 0, 1}, {1, 1, 2, 2}));
  expect_error<ShapeError>("indices: block 1 twice in row 1", call({0, 1, 1, 1}, {1, 1, 2, 2}));
  expect_error<ShapeError>("indices: 3 heads", call({0, 0, 0, 0, 0, 0}, {1, 3, 2, 1}));
  expect_error<ShapeError>("indices: shape", call({0, 0, 0}, {1, 1, 3, 1}));
  expect_error<ShapeError>("key_block: 48", call({0, 0}, {1, 1, 2, 1}, 48));
  const BlockLists lists{.indices = int_tensor({0, 0}, {1, 1, 2, 1})};
  expect_error<DtypeError>("block_attention_reference", [&] {
    block_attention(q.to(at::kDouble), q.to(at::kDouble), q.to(at::kDouble), lists);
  });
  expect_error<DtypeError>("v: dtype", [&] { block_attention(q, q, q.to(at::kBFloat16), lists); });
}

}  // namespace
}  // namespace longreach::test
