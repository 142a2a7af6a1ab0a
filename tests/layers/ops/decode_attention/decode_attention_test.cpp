// The kernel of queries that are being decoded against the float64 reference, with every mask that decoding
// uses.
#include "layers/ops/decode_attention/decode_attention.h"

#include <limits>

#include "tests/layers/ops/cpu/cpu_target.h"
#include "tests/layers/ops/interval_attention/cases.h"
#include "tests/support/errors.h"

namespace longreach::test {
namespace {

class DecodeAttention : public CpuTarget {};
INSTANTIATE_TEST_SUITE_P(Targets, DecodeAttention, cpu_targets(), cpu_target_name);

void expect_decoded(const AttentionCase& c) {
  SCOPED_TRACE(c.name());
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const auto input = [&](int64_t tokens, int64_t heads, int64_t size, uint64_t salt) {
      return normal({c.batch, tokens, heads, size}, c.seed + salt, dtype);
    };
    const at::Tensor q = input(c.queries, c.heads, c.qk_size, 1) * c.magnitude,
                     k = input(c.keys, c.key_heads, c.qk_size, 2),
                     v = input(c.keys, c.value_heads, c.v_size, 3);
    const auto wide = [](const at::Tensor& x) { return x.to(at::kDouble); };
    const at::Tensor exact = interval_attention_reference(wide(q), wide(k), wide(v), c.mask).o,
                     plain = interval_attention_reference(q, k, v, c.mask).o;
    const at::Tensor found = decode_attention(q, k, v, c.mask);
    EXPECT_EQ(found.scalar_type(), dtype);
    EXPECT_EQ(found.sizes(), exact.sizes());
    if (exact.abs().max().item<double>() == 0.0) {
      EXPECT_EQ(found.abs().max().item<double>(), 0.0);
      continue;
    }
    const double floor = dtype == at::kBFloat16 ? 0x1p-9 : 1e-6;
    EXPECT_LE(relative_error(found, exact), 2 * relative_error(plain, exact) + floor) << dtype;
  }
}

TEST_P(DecodeAttention, EqualsTheReference) {
  for (const int64_t queries : {1, 2, 4})
    for (const int64_t keys : {4, 15, 16, 17, 64, 130, 300})
      for (const auto& [qk, v] :
           std::vector<std::pair<int64_t, int64_t>>{{64, 64}, {1, 1}, {24, 40}, {80, 130}})
        expect_decoded({.batch = 2,
                        .queries = queries,
                        .keys = keys,
                        .heads = 6,
                        .key_heads = 3,
                        .value_heads = 2,
                        .qk_size = qk,
                        .v_size = v});
}

TEST_P(DecodeAttention, WindowsSinksAndIntervals) {
  for (const int64_t window : {1, 7, 100})
    for (const int64_t sinks : {0, 1, 70}) {
      AttentionCase c{.queries = 3, .keys = 90};
      c.mask.window = window;
      c.mask.sinks = sinks;
      expect_decoded(c);
      random_intervals(c, 1, 1, 7 + static_cast<uint64_t>(window));
      expect_decoded(c);
      c.mask.lo = c.mask.hi = at::Tensor();
      c.mask.causal = false;
      expect_decoded(c);
    }
}

TEST_P(DecodeAttention, LargeScores) {
  expect_decoded({.queries = 1, .keys = 70, .qk_size = 64, .magnitude = 30.0});
}

TEST(DecodeAttentionRows, ThatSeeNothingAreZero) {
  const at::Tensor q = normal({1, 2, 1, 8}, 1, at::kFloat), k = normal({1, 9, 1, 8}, 2, at::kFloat);
  IntervalMask mask;
  mask.lo = int_tensor({4, 9}, {1, 1, 2});
  mask.hi = int_tensor({4, 20}, {1, 1, 2});
  EXPECT_EQ(decode_attention(q, k, k, mask).abs().max().item<float>(), 0.0f);
  EXPECT_EQ(decode_attention(q, k.narrow(1, 0, 0), k.narrow(1, 0, 0), {}).abs().max().item<float>(), 0.0f);
}

// What no query sees may be anything: a cache behind its last token is not cleared.
TEST(DecodeAttentionRows, UnseenKeysAndValuesAreNotRead) {
  const at::Tensor q = normal({1, 1, 2, 8}, 1, at::kFloat), k = normal({1, 40, 2, 8}, 2, at::kFloat),
                   v = normal({1, 40, 2, 8}, 3, at::kFloat);
  IntervalMask mask{.window = 5, .sinks = 2};
  const at::Tensor clean = decode_attention(q, k, v, mask);
  for (const at::Tensor& x : {k, v}) x.narrow(1, 2, 33).fill_(std::numeric_limits<float>::quiet_NaN());
  EXPECT_TRUE(decode_attention(q, k, v, mask).equal(clean));
  v[0][39][1][3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(decode_attention(q, k, v, mask).isnan().sum().item<int64_t>(), 1);
}

// The cache's own layout: a view of the first tokens of a longer buffer, and heads before tokens.
TEST(DecodeAttentionRows, AreReadWhereTheyLie) {
  const at::Tensor q = normal({2, 1, 4, 16}, 1, at::kFloat), buffer = normal({2, 50, 2, 16}, 2, at::kFloat);
  const at::Tensor k = buffer.narrow(1, 0, 33), by_heads = k.transpose(1, 2).contiguous().transpose(1, 2);
  const at::Tensor o = decode_attention(q, k.contiguous(), k.contiguous());
  EXPECT_TRUE(decode_attention(q, k, k).equal(o));
  EXPECT_TRUE(decode_attention(q, by_heads, by_heads).equal(o));
}

TEST(DecodeAttentionRows, PackedDocumentsAreRefused) {
  const at::Tensor q = normal({1, 2, 1, 8}, 1, at::kFloat);
  IntervalMask mask;
  mask.cu_seqlens_q = mask.cu_seqlens_k = int_tensor({0, 2}, {2});
  expect_error<ShapeError>("cu_seqlens", [&] { decode_attention(q, q, q, mask); });
}

// More queries than a few have the bits of the operator.
TEST(DecodeAttentionRows, ManyGoToTheOperator) {
  const at::Tensor q = normal({1, 70, 2, 8}, 1, at::kFloat), k = normal({1, 90, 2, 8}, 2, at::kFloat);
  EXPECT_TRUE(decode_attention(q, k, k).equal(interval_attention(q, k, k).o));
}

}  // namespace
}  // namespace longreach::test
