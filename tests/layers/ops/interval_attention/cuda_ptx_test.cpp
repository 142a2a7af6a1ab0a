// The CUDA kernels of interval attention, run from their PTX through the product's launch plans, against the
// float64 reference: every feature, every built pair of head dims, traffic of shared and global memory.
#include <ATen/ops/equal.h>

#include <random>

#include "tests/layers/ops/interval_attention/cuda_cases.h"

namespace longreach::test {
namespace {

using interval::ForwardPath;

AttentionCase one_head(int64_t length, int64_t size) {
  return {.batch = 1,
          .queries = length,
          .keys = length,
          .heads = 1,
          .key_heads = 1,
          .value_heads = 1,
          .qk_size = size,
          .v_size = size};
}

CudaRun tiles() { return {.options = {.path = ForwardPath::kTiles}}; }

CudaRun decode(int splits) {
  return {.options = {.path = ForwardPath::kDecode, .splits = splits}, .backward = false};
}

TEST(IntervalAttentionPtx, LengthsAroundTheTiles) {
  for (const int64_t length : {0, 1, 63, 64, 65, 200, 257}) {
    for (const int64_t size : {64, 128}) {
      AttentionCase c = one_head(length, size);
      expect_cuda_matches(c, at::kBFloat16, tiles());
      c.mask.causal = false;
      expect_cuda_matches(c, at::kBFloat16, tiles());
    }
  }
}

void expect_lengths(at::ScalarType dtype) {
  for (const int64_t length : {1, 63, 64, 65, 200, 257}) {
    AttentionCase c = one_head(length, 64);
    for (const bool causal : {true, false}) {
      c.mask.causal = causal;
      expect_cuda_matches(c, dtype, tiles());
    }
    AttentionCase last = c;
    last.queries = 1;
    expect_cuda_matches(last, dtype, decode(2));
  }
}

TEST(IntervalAttentionPtx, LengthsAroundTheTilesInFloat16) { expect_lengths(at::kHalf); }
TEST(IntervalAttentionPtx, LengthsAroundTheTilesInFloat32) { expect_lengths(at::kFloat); }

// Every pair that is built, and sizes that are filled up to it.
void expect_head_dims(at::ScalarType dtype, int64_t qk, int64_t v) {
  const AttentionCase c{.batch = 1,
                        .queries = 140,
                        .keys = 140,
                        .heads = 2,
                        .key_heads = 1,
                        .value_heads = 1,
                        .qk_size = qk,
                        .v_size = v};
  expect_cuda_matches(c, dtype, tiles());
  CudaRun split = decode(2);
  AttentionCase few = c;
  few.queries = 3;
  expect_cuda_matches(few, dtype, split);
}

const std::vector<std::pair<int64_t, int64_t>> kHalfPairs{{32, 32},   {64, 64},   {96, 96},  {128, 128},
                                                          {192, 128}, {192, 192}, {256, 256}};

TEST(IntervalAttentionPtx, HeadDimsInBFloat16) {
  for (const auto& [qk, v] : kHalfPairs) expect_head_dims(at::kBFloat16, qk, v);
}

TEST(IntervalAttentionPtx, HeadDimsInFloat16) {
  for (const auto& [qk, v] : kHalfPairs) expect_head_dims(at::kHalf, qk, v);
}

TEST(IntervalAttentionPtx, HeadDimsInFloat32) {
  for (const int64_t size : {64, 128, 256}) expect_head_dims(at::kFloat, size, size);
}

TEST(IntervalAttentionPtx, HeadDimsBetweenTheBuiltOnes) {
  for (const auto& [qk, v] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 5}, {17, 40}, {80, 80}, {40, 256}})
    for (const auto dtype : {at::kBFloat16, at::kFloat}) expect_head_dims(dtype, qk, v);
}

TEST(IntervalAttentionPtx, FewerAndMoreQueriesThanKeys) {
  for (const auto& [queries, keys] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 150}, {70, 200}, {200, 70}, {5, 0}, {0, 9}})
    for (const int64_t window : {0, 20})
      for (const bool causal : {true, false}) {
        AttentionCase c{.batch = 1, .queries = queries, .keys = keys, .heads = 2};
        c.key_heads = c.value_heads = 2, c.qk_size = c.v_size = 64;
        c.mask.window = window;
        c.mask.causal = causal;
        expect_cuda_matches(c, at::kBFloat16, tiles());
      }
}

TEST(IntervalAttentionPtx, GroupedHeadsWithDifferentMapsOfKeysAndValues) {
  for (const auto& [k, v] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {2, 2}, {1, 6}, {2, 3}, {6, 2}})
    for (const auto dtype : {at::kBFloat16, at::kFloat}) {
      AttentionCase c{.queries = 70, .keys = 70, .heads = 6, .key_heads = k, .value_heads = v};
      c.batch = dtype == at::kFloat ? 1 : 2, c.qk_size = 40, c.v_size = 32;
      expect_cuda_matches(c, dtype, tiles());
    }
}

TEST(IntervalAttentionPtx, WindowsAndSinks) {
  for (const int64_t window : {1, 16, 100})
    for (const int64_t sinks : {0, 1, 70})
      for (const bool causal : {true, false}) {
        AttentionCase c = one_head(230, 32);
        c.mask.window = window;
        c.mask.sinks = sinks;
        c.mask.causal = causal;
        expect_cuda_matches(c, at::kBFloat16, tiles());
      }
}

void expect_explicit_intervals(int64_t batches) {
  for (const int64_t heads : {1, 2, 4})
    for (const int64_t sinks : {0, 3}) {
      AttentionCase c{.queries = 110, .keys = 140, .heads = 4, .key_heads = 2, .value_heads = 4};
      c.qk_size = c.v_size = 32;
      random_intervals(c, batches, heads, 7);
      c.mask.sinks = sinks;
      expect_cuda_matches(c, at::kBFloat16, tiles());
    }
}

TEST(IntervalAttentionPtx, ExplicitIntervalsForAllBatches) { expect_explicit_intervals(1); }
TEST(IntervalAttentionPtx, ExplicitIntervalsByBatch) { expect_explicit_intervals(2); }

TEST(IntervalAttentionPtx, RowsThatSeeNothing) {
  AttentionCase c{.batch = 1, .queries = 5, .keys = 9, .heads = 1, .key_heads = 1, .value_heads = 1};
  c.mask.lo = int_tensor({0, 4, 9, 3, -5}, {1, 1, 5});
  c.mask.hi = int_tensor({9, 4, 20, 2, 0}, {1, 1, 5});
  for (const CudaRun& how : {tiles(), decode(1), decode(3)}) {
    expect_cuda_matches(c, at::kBFloat16, how);
    const CudaResult found = run_cuda(c, at::kBFloat16, how);
    EXPECT_EQ(found.tensors[0].narrow(1, 1, 4).abs().max().item<float>(), 0.0f);
    EXPECT_TRUE(found.minus_infinity.narrow(2, 1, 4).all().item<bool>());
    EXPECT_FALSE(found.minus_infinity.narrow(2, 0, 1).any().item<bool>());
    if (!how.backward) continue;
    EXPECT_EQ(found.tensors[2].narrow(1, 1, 4).abs().max().item<float>(), 0.0f);
  }
}

AttentionCase packed(int64_t window, int64_t sinks) {
  AttentionCase c{.batch = 1, .queries = 260, .keys = 300, .heads = 4, .key_heads = 2, .value_heads = 1};
  c.qk_size = c.v_size = 64;
  c.mask.cu_seqlens_q = int_tensor({0, 0, 70, 71, 200, 200, 260}, {7});
  c.mask.cu_seqlens_k = int_tensor({0, 5, 70, 90, 220, 220, 300}, {7});
  c.mask.window = window;
  c.mask.sinks = sinks;
  return c;
}

TEST(IntervalAttentionPtx, PackedDocuments) {
  expect_cuda_matches(packed(0, 0), at::kBFloat16, tiles());
  expect_cuda_matches(packed(30, 2), at::kBFloat16, tiles());
  expect_cuda_matches(packed(0, 0), at::kFloat, tiles());
  AttentionCase c = packed(0, 2);
  random_intervals(c, 1, 2, 11);
  expect_cuda_matches(c, at::kBFloat16, tiles());
  expect_cuda_matches(c, at::kBFloat16, decode(3));
}

TEST(IntervalAttentionPtx, LargeLogits) {
  for (const auto dtype : {at::kBFloat16, at::kHalf, at::kFloat}) {
    AttentionCase c = one_head(200, 64);
    c.magnitude = 8.0;
    expect_cuda_matches(c, dtype, tiles());
    expect_cuda_matches(c, dtype, decode(2));
  }
}

// Where a score's last bit is worth more than any power can be; the first rows see negative ones alone with
// one of the scales.
TEST(IntervalAttentionPtx, ScoresOfAnySize) {
  for (const double magnitude : {1e10, 1e32}) {
    for (const auto dtype : {at::kBFloat16, at::kFloat})
      for (const double scale : {0.125, -0.125}) {
        AttentionCase c = one_head(130, 64);
        c.magnitude = magnitude, c.scale = scale;
        for (CudaRun how : {tiles(), decode(2)}) {
          how.backward = false;
          expect_cuda_matches(c, dtype, how);
        }
      }
  }
}

TEST(IntervalAttentionPtx, NegativeAndZeroScale) {
  for (const double scale : {-0.7, 0.0, 0.5})
    for (const auto dtype : {at::kBFloat16, at::kFloat}) {
      AttentionCase c = one_head(150, 32);
      c.scale = scale;
      expect_cuda_matches(c, dtype, tiles());
      expect_cuda_matches(c, dtype, decode(2));
    }
}

TEST(IntervalAttentionPtx, AnyStrides) {
  for (const Layout layout : {Layout::kHeadMajor, Layout::kGaps, Layout::kMisaligned})
    for (const auto dtype : {at::kBFloat16, at::kFloat})
      for (const int64_t size : {64, 27}) {
        AttentionCase c{.queries = 70, .keys = 90, .heads = 4, .key_heads = 2, .value_heads = 2};
        c.qk_size = c.v_size = size;
        CudaRun how = tiles();
        how.layout = layout;
        expect_cuda_matches(c, dtype, how);
      }
}

// Batch entries more than 2^32 elements apart: offsets of 64 bits.
TEST(IntervalAttentionPtx, BatchEntriesFarApart) {
  AttentionCase c{.batch = 2, .queries = 70, .keys = 70, .heads = 1, .key_heads = 1, .value_heads = 1};
  c.qk_size = c.v_size = 64;
  CudaRun how = tiles();
  how.far_apart = true;
  how.backward = false;
  expect_cuda_matches(c, at::kBFloat16, how);
}

TEST(IntervalAttentionPtx, Decoding) {
  for (const int64_t queries : {1, 5})
    for (const auto& [k, v] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {2, 4}, {8, 8}})
      for (const int splits : {1, 4}) {
        AttentionCase c{
            .batch = 1, .queries = queries, .keys = 500, .heads = 8, .key_heads = k, .value_heads = v};
        c.qk_size = c.v_size = 128;
        expect_cuda_matches(c, at::kBFloat16, decode(splits));
        c.mask.window = 200;
        c.mask.sinks = 10;
        expect_cuda_matches(c, at::kBFloat16, decode(splits));
      }
}

TEST(IntervalAttentionPtx, DecodingOfPackedDocumentsAndIntervals) {
  AttentionCase c{.batch = 1, .queries = 4, .keys = 500, .heads = 4, .key_heads = 2, .value_heads = 2};
  c.qk_size = c.v_size = 64;
  c.mask.cu_seqlens_q = int_tensor({0, 1, 1, 2, 4}, {5});
  c.mask.cu_seqlens_k = int_tensor({0, 130, 140, 140, 500}, {5});
  for (const int splits : {1, 5}) expect_cuda_matches(c, at::kHalf, decode(splits));
  c.mask.cu_seqlens_q = c.mask.cu_seqlens_k = at::Tensor();
  random_intervals(c, 1, 4, 5);
  for (const int splits : {1, 5}) expect_cuda_matches(c, at::kFloat, decode(splits));
}

// The order in which blocks and warps run does not change a bit.
TEST(IntervalAttentionPtx, BitsDoNotDependOnTheSchedule) {
  AttentionCase c{.batch = 1, .queries = 200, .keys = 200, .heads = 4, .key_heads = 1, .value_heads = 2};
  c.qk_size = c.v_size = 64;
  CudaRun how = tiles();
  const CudaResult in_order = run_cuda(c, at::kBFloat16, how);
  for (const uint64_t schedule : {1, 2, 3}) {
    how.schedule = schedule;
    const CudaResult other = run_cuda(c, at::kBFloat16, how);
    for (size_t i = 0; i < other.tensors.size(); ++i)
      EXPECT_TRUE(at::equal(other.tensors[i], in_order.tensors[i])) << i;
  }
}

// At full tiles every shared access is free of conflicts, and global memory is read and written in whole
// sectors.
TEST(IntervalAttentionPtx, TrafficIsWhatTheTilesNeed) {
  const auto judge = [](const AttentionCase& c, at::ScalarType dtype, CudaRun how) {
    SCOPED_TRACE(text(c.name(), ' ', at::toString(dtype)));
    how.profile = true;
    for (const ptx::Report& report : run_cuda(c, dtype, how).reports) {
      EXPECT_LE(report.shared_wavefront_ratio(), 1.05) << report.text();
      EXPECT_LE(report.sector_ratio(), 1.10) << report.text();
    }
  };
  for (const auto& [qk, v] : kHalfPairs) {
    AttentionCase c = one_head(256, qk);
    c.v_size = v;
    judge(c, at::kBFloat16, tiles());
  }
  for (const int64_t size : {64, 128, 256}) judge(one_head(256, size), at::kFloat, tiles());
  AttentionCase c{.batch = 1, .queries = 1, .keys = 1024, .heads = 16, .key_heads = 1, .value_heads = 1};
  c.qk_size = c.v_size = 128;
  judge(c, at::kBFloat16, decode(2));
}

void expect_random_shapes(uint64_t first, uint64_t last) {
  const at::ScalarType dtypes[] = {at::kBFloat16, at::kFloat, at::kHalf};
  for (uint64_t seed = first; seed <= last; ++seed) {
    CudaRun how{.schedule = seed};
    how.layout = static_cast<Layout>(seed % 4);
    expect_cuda_matches(random_attention_case(seed, 128), dtypes[seed % 3], how);
  }
}

TEST(IntervalAttentionPtx, RandomShapes) { expect_random_shapes(1, 15); }
TEST(IntervalAttentionPtx, MoreRandomShapes) { expect_random_shapes(16, 30); }
TEST(IntervalAttentionPtx, StillMoreRandomShapes) { expect_random_shapes(31, 45); }

}  // namespace
}  // namespace longreach::test
