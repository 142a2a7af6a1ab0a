// cuDNN's attention without cuDNN: LibTorch's two operators are given CPU kernels from the formula, in the
// operators' own layout, so that layouts, causality, scale and the backward pass's arguments are held to the
// reference. And what it refuses.
#include "layers/ops/cudnn_attention/cudnn_attention.h"

#include <ATen/Context.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>
#include <torch/library.h>

#include <cmath>
#include <limits>

#include "tests/layers/ops/interval_attention/cases.h"

namespace longreach::test {
namespace {

// q [B, H, Tq, D], k and v with as many heads or a divisor: weights [B, H, Tq, Tk] and lse [B, H, Tq, 1];
// causal counts from the first query and key.
struct Scores {
  at::Tensor weights, lse, keys, values;
  double factor;
  Scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal,
         std::optional<double> scale) {
    const int64_t groups = q.size(1) / k.size(1);
    factor = scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(3))));
    keys = k.repeat_interleave(groups, 1).to(at::kFloat);
    at::Tensor scores = q.to(at::kFloat).matmul(keys.transpose(2, 3)) * factor;
    if (causal)
      scores = scores.masked_fill(at::ones({q.size(2), k.size(2)}, at::kBool).tril().logical_not(),
                                  -std::numeric_limits<double>::infinity());
    lse = scores.logsumexp(at::IntArrayRef{3}, true);
    weights = (scores - lse).exp();
    values = v.repeat_interleave(groups, 1).to(at::kFloat);
  }
  at::Tensor o() const { return weights.matmul(values); }
};

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, c10::SymInt, c10::SymInt, at::Tensor, at::Tensor,
           at::Tensor>
forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::optional<at::Tensor>& bias,
        bool with_lse, double dropout, bool causal, bool, std::optional<double> scale) {
  EXPECT_FALSE(bias.has_value());
  EXPECT_TRUE(with_lse);
  EXPECT_EQ(dropout, 0.0);
  const Scores s(q, k, v, causal, scale);
  const at::Tensor seed = at::full({}, 17, at::kLong), offset = at::full({}, 23, at::kLong);
  // Laid out as q is, which is what LibTorch does.
  const at::Tensor o = s.o().to(q.scalar_type()).transpose(1, 2).contiguous().transpose(1, 2);
  return {o, s.lse, {}, {}, q.size(2), k.size(2), seed, offset, {}};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(
    const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
    const at::Tensor& o, const at::Tensor& lse, const at::Tensor& seed, const at::Tensor& offset,
    const at::Tensor& bias, const at::Tensor&, const at::Tensor&, c10::SymInt queries, c10::SymInt keys,
    double, bool causal, std::optional<double> scale) {
  EXPECT_FALSE(bias.defined());
  EXPECT_EQ(queries, q.size(2));
  EXPECT_EQ(keys, k.size(2));
  EXPECT_EQ(seed.item<int64_t>(), 17);
  EXPECT_EQ(offset.item<int64_t>(), 23);
  EXPECT_TRUE(o.transpose(1, 2).is_contiguous());
  EXPECT_TRUE(grad.transpose(1, 2).is_contiguous()) << "cuDNN would copy the gradient";
  const Scores s(q, k, v, causal, scale);
  EXPECT_LE(relative_error(lse, s.lse), 1e-6);
  const at::Tensor d_o = grad.to(at::kFloat), dp = d_o.matmul(s.values.transpose(2, 3));
  const at::Tensor ds = s.weights * (dp - (dp * s.weights).sum(-1, true)) * s.factor;
  // The heads that share a key head are summed.
  const auto shared = [&](const at::Tensor& x) {
    return x.view({x.size(0), k.size(1), -1, x.size(2), x.size(3)}).sum(2).to(q.scalar_type());
  };
  return {ds.matmul(s.keys).to(q.scalar_type()), shared(ds.transpose(2, 3).matmul(q.to(at::kFloat))),
          shared(s.weights.transpose(2, 3).matmul(d_o))};
}

TORCH_LIBRARY_IMPL(aten, CPU, library) {
  library.impl("_scaled_dot_product_cudnn_attention", forward);
  library.impl("_scaled_dot_product_cudnn_attention_backward", backward);
}

IntervalAttentionOutput by_cudnn(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const IntervalMask& mask, std::optional<double> scale) {
  const auto [o, lse] = cudnn_attention(q, k, v, mask.causal, scale);
  return {o, lse};
}

AttentionCase dense(int64_t queries, int64_t keys, int64_t key_heads) {
  AttentionCase c{.queries = queries, .keys = keys, .key_heads = key_heads, .value_heads = key_heads};
  c.gradient_of_lse = false;
  return c;
}

TEST(CudnnAttention, IsTheFunctionOfIntervalAttention) {
  for (const bool causal : {true, false})
    for (const int64_t key_heads : {4, 2, 1}) {
      AttentionCase c = dense(33, 33, key_heads);
      c.mask.causal = causal;
      expect_matches_reference(c, at::kBFloat16, by_cudnn);
    }
  AttentionCase scaled = dense(20, 20, 4);
  scaled.scale = 0.7;
  expect_matches_reference(scaled, at::kBFloat16, by_cudnn);
}

TEST(CudnnAttention, OneQueryStandsAtTheEnd) {
  expect_matches_reference(dense(1, 40, 2), at::kBFloat16, by_cudnn);
}

std::string refusal(const at::Tensor& q, const at::Tensor& k, bool causal = true, bool gradients = false) {
  return cudnn_refusal(q, k, k, causal, gradients);
}

TEST(CudnnAttention, SaysWhatItDoesNotTake) {
  const auto half = [](int64_t tokens, int64_t size) {
    return normal({1, tokens, 2, size}, 1, at::kBFloat16);
  };
  EXPECT_EQ(refusal(half(8, 64), half(8, 64)), "");
  EXPECT_EQ(refusal(half(1, 64), half(8, 64)), "");
  EXPECT_EQ(refusal(half(4, 64), half(8, 64), false), "");
  EXPECT_EQ(refusal(half(4, 64), half(8, 64)),
            "4 queries of 8 keys; causal, it takes as many as keys, or one");
  EXPECT_EQ(refusal(half(8, 60), half(8, 60)), "head dimension 60; it takes multiples of 8 up to 128");
  EXPECT_EQ(refusal(half(8, 136), half(8, 136)), "head dimension 136; it takes multiples of 8 up to 128");
  EXPECT_EQ(refusal(half(1, 64), half(1, 64)),
            "1 x 1 queries, 1 keys; it takes one query and two keys at least");
  const at::Tensor wide = normal({1, 8, 2, 64}, 1, at::kFloat);
  EXPECT_EQ(refusal(wide, wide), "dtype Float; it takes float16 and bfloat16");
  at::globalContext().setDeterministicAlgorithms(true, false);
  EXPECT_EQ(refusal(half(8, 64), half(8, 64)), "");
  EXPECT_NE(refusal(half(8, 64), half(8, 64), true, true), "");
  at::globalContext().setDeterministicAlgorithms(false, false);
}

}  // namespace
}  // namespace longreach::test
