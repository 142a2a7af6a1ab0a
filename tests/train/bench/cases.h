// Cases made for tests: an attention by plain tensor operations, and the same with a fault.
#pragma once
#include <ATen/ops/ones.h>
#include <ATen/ops/triu.h>

#include <cmath>
#include <limits>

#include "train/bench/bench_case.h"

namespace longreach::bench::test {

// Causal softmax attention from its formula; queries stand at the last keys.
inline at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const auto head_first = [&](const at::Tensor& x) {
    return x.repeat_interleave(q.size(2) / x.size(2), 2).transpose(1, 2);
  };
  const at::Tensor hidden = at::ones({q.size(1), k.size(1)}, at::kBool).triu(1 + k.size(1) - q.size(1));
  const double scale = 1 / std::sqrt(static_cast<double>(q.size(3)));
  const at::Tensor scores = head_first(q).matmul(head_first(k).transpose(2, 3)).mul(scale);
  const at::Tensor p = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity()).softmax(-1);
  return p.matmul(head_first(v)).transpose(1, 2);
}

inline BenchCase formula_case(AttentionFunction fused = causal_attention) {
  BenchCase result = interval_attention_case();
  result.name = "formula";
  result.fused = std::move(fused);
  result.reference = causal_attention;
  return result;
}

inline Setting small_setting(const std::string& pass, const std::string& dtype = "float32") {
  return {.name = "formula",
          .tokens = 96,
          .heads = 2,
          .kv_heads = 2,
          .head_dim = 16,
          .dtype = dtype,
          .pass = pass,
          .rounds = 3};
}

}  // namespace longreach::bench::test
