// Inputs and the comparison with the float64 reference that the tests of block attention share.
#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <string>

#include "core/error.h"
#include "layers/ops/block_attention/block_attention.h"
#include "layers/ops/document_rows.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {

struct BlockCase {
  int64_t batch = 1, queries = 130, keys = 130, heads = 4, key_heads = 2, value_heads = 2, qk_size = 16,
          v_size = 16;
  int64_t list_batches = 1, list_heads = 2, query_block = 64, key_block = 64;
  double density = 0.5;  // chance that a row lists a block
  bool causal = true;
  at::Tensor cu_seqlens_q, cu_seqlens_k;
  double magnitude = 1.0;  // of q: multiplies the logits
  uint64_t seed = 1;
  bool gradient_of_o = true, gradient_of_lse = true;
  BlockStatistics statistics = BlockStatistics::per_head;

  std::string name() const {
    return text("B", batch, " Tq", queries, " Tk", keys, " H", heads, '/', key_heads, '/', value_heads,
                " lists ", list_batches, 'x', list_heads, " D", qk_size, '/', v_size, " blocks ", query_block,
                'x', key_block, " causal", causal, cu_seqlens_q.defined() ? " packed" : "", " seed", seed);
  }
};

// Each row lists each block of its document with the case's density, in a random order, with -1 in between.
inline BlockLists random_lists(const BlockCase& c) {
  BlockLists lists{.query_block = c.query_block,
                   .key_block = c.key_block,
                   .causal = c.causal,
                   .cu_seqlens_q = c.cu_seqlens_q,
                   .cu_seqlens_k = c.cu_seqlens_k};
  const auto documents = document_rows(c.cu_seqlens_q, c.cu_seqlens_k, c.queries, c.keys, c.query_block);
  int64_t most = 0;
  for (const DocumentRows& document : documents) most = std::max(most, ceil_div(document.keys, c.key_block));
  const int64_t rows = row_count(documents), slots = most + 2;
  lists.indices = at::full({c.list_batches, c.list_heads, rows, slots}, -1, at::kInt);
  int32_t* entry = lists.indices.data_ptr<int32_t>();
  std::mt19937_64 random(c.seed * 977);
  for (int64_t list = 0; list < c.list_batches * c.list_heads; ++list)
    for (const DocumentRows& document : documents)
      for (int64_t row = 0; row < document.rows; ++row, entry += slots) {
        const int64_t blocks = ceil_div(document.keys, c.key_block);
        for (int64_t block = 0; block < blocks; ++block)
          if (std::uniform_real_distribution<double>()(random) < c.density)
            entry[block] = static_cast<int32_t>(block);
        std::shuffle(entry, entry + slots, random);
      }
  return lists;
}

// o, lse (0 in place of -inf), dq, dk, dv, and the statistics of one implementation, in this order.
using BlockResult = std::vector<at::Tensor>;
using BlockOperation = BlockAttentionOutput (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                const BlockLists&, const BlockAttentionOptions&);

// Inputs are rounded to `rounding` first, so that runs in different dtypes see the same numbers.
inline BlockResult run_block_attention(const BlockCase& c, BlockOperation operation, at::ScalarType dtype,
                                       at::ScalarType rounding) {
  const auto input = [&](at::IntArrayRef shape, uint64_t salt, double magnitude) {
    return (normal(shape, c.seed * 16 + salt) * magnitude).to(rounding).to(dtype);
  };
  const at::Tensor q = input({c.batch, c.queries, c.heads, c.qk_size}, 0, c.magnitude).requires_grad_();
  const at::Tensor k = input({c.batch, c.keys, c.key_heads, c.qk_size}, 1, 1.0).requires_grad_();
  const at::Tensor v = input({c.batch, c.keys, c.value_heads, c.v_size}, 2, 1.0).requires_grad_();
  const BlockAttentionOutput output = operation(q, k, v, random_lists(c), {.statistics = c.statistics});
  const at::Tensor d_o = input({c.batch, c.queries, c.heads, c.v_size}, 3, 1.0);
  const at::Tensor d_lse = input({c.batch, c.heads, c.queries}, 4, 1.0).to(output.lse.scalar_type());
  std::vector<at::Tensor> outputs, gradients;
  if (c.gradient_of_o) outputs.push_back(output.o), gradients.push_back(d_o);
  if (c.gradient_of_lse) {
    // d(lse) of a row that sees nothing leads nowhere.
    outputs.push_back(output.lse);
    gradients.push_back(d_lse.masked_fill(output.lse.detach().isinf(), 0.0));
  }
  const std::vector<at::Tensor> inputs{q, k, v};
  auto grads = torch::autograd::grad(outputs, inputs, gradients, std::nullopt, false, true);
  BlockResult result{output.o.detach(), output.lse.detach().masked_fill(output.lse.detach().isinf(), 0.0)};
  for (size_t i = 0; i < grads.size(); ++i)
    result.push_back(grads[i].defined() ? grads[i] : at::Tensor(inputs[i].detach() * 0.0));
  if (c.statistics != BlockStatistics::none)
    result.push_back(output.block_max), result.push_back(output.block_sum);
  return result;
}

// Fused in `dtype` against the reference in float64: RMS errors at most max(floor, 2 x those of the reference
// in `dtype`).
inline void expect_matches_reference(const BlockCase& c, at::ScalarType dtype,
                                     BlockOperation operation = block_attention) {
  SCOPED_TRACE(c.name());
  const BlockResult exact = run_block_attention(c, block_attention_reference, at::kDouble, dtype);
  const BlockResult plain = run_block_attention(c, block_attention_reference, dtype, dtype);
  const BlockResult fused = run_block_attention(c, operation, dtype, dtype);
  const double floor = dtype == at::kFloat ? 5e-6 : 1e-2;
  const char* names[] = {"o", "lse", "dq", "dk", "dv", "block_max", "block_sum"};
  for (size_t i = 0; i < exact.size(); ++i) {
    ASSERT_EQ(fused[i].sizes(), exact[i].sizes()) << names[i];
    if (exact[i].numel() == 0) continue;
    if (exact[i].abs().max().item<double>() == 0.0) {
      EXPECT_EQ(fused[i].abs().max().item<double>(), 0.0) << names[i];
      continue;
    }
    const double limit = std::max(floor, 2.0 * relative_error(plain[i], exact[i]));
    EXPECT_LE(relative_error(fused[i], exact[i]), limit) << names[i];
  }
}

inline void expect_matches_in_both_dtypes(const BlockCase& c) {
  expect_matches_reference(c, at::kFloat);
  expect_matches_reference(c, at::kBFloat16);
}

inline at::Tensor int_tensor(const std::vector<int32_t>& values, at::IntArrayRef shape) {
  at::Tensor tensor = at::full(shape, 0, at::kInt);
  std::copy(values.begin(), values.end(), tensor.data_ptr<int32_t>());
  return tensor;
}

inline BlockCase random_block_case(uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto draw = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  const int64_t counts[] = {1, 2, 3, 4, 6}, query_blocks[] = {1, 3, 16, 48, 64, 100, 128};
  BlockCase c{.seed = seed};
  c.heads = counts[draw(0, 4)];
  const auto divisor = [&] {
    int64_t n = draw(1, c.heads);
    while (c.heads % n != 0) --n;
    return n;
  };
  c.key_heads = divisor(), c.value_heads = divisor(), c.list_heads = divisor();
  c.qk_size = draw(1, 40), c.v_size = draw(1, 40);
  c.batch = draw(1, 2), c.queries = draw(0, 150);
  c.list_batches = draw(0, 1) == 0 ? 1 : c.batch;
  c.keys = draw(0, 2) == 0 ? draw(0, 150) : c.queries;
  c.causal = draw(0, 3) != 0;
  c.query_block = query_blocks[draw(0, 6)], c.key_block = int64_t{16} << draw(0, 3);
  c.density = 0.2 * static_cast<double>(draw(1, 5));
  c.statistics = static_cast<BlockStatistics>(draw(0, 2));
  if (draw(0, 2) == 0) {
    c.batch = c.list_batches = 1;
    const auto bounds = [&](int64_t total) {
      std::vector<int32_t> cuts{0, static_cast<int32_t>(total)};
      for (int i = 0; i < 3; ++i) cuts.push_back(static_cast<int32_t>(draw(0, total)));
      std::sort(cuts.begin(), cuts.end());
      return int_tensor(cuts, {5});
    };
    c.cu_seqlens_q = bounds(c.queries), c.cu_seqlens_k = bounds(c.keys);
  }
  return c;
}

}  // namespace longreach::test
