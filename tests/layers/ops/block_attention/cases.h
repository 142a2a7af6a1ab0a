// Inputs and the comparison with the float64 reference that the tests of block attention share.
#pragma once
#include <ATen/ops/full.h>

#include <algorithm>
#include <random>
#include <string>

#include "core/error.h"
#include "layers/ops/block_attention/block_attention.h"
#include "layers/ops/common/packed_documents.h"
#include "tests/layers/ops/common/attention_cases.h"

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
  const auto documents = packed_documents(c.cu_seqlens_q, c.cu_seqlens_k, c.queries, c.keys, c.query_block);
  const int64_t rows = row_count(documents), slots = most_blocks(documents, c.key_block) + 2;
  lists.indices = at::full({c.list_batches, c.list_heads, rows, slots}, -1, at::kInt);
  int32_t* entry = lists.indices.data_ptr<int32_t>();
  std::mt19937_64 random(c.seed * 977);
  for (int64_t list = 0; list < c.list_batches * c.list_heads; ++list)
    for (const PackedDocument& document : documents)
      for (int64_t row = 0; row < document.rows; ++row, entry += slots) {
        const int64_t blocks = document.blocks(c.key_block);
        for (int64_t block = 0; block < blocks; ++block)
          if (std::uniform_real_distribution<double>()(random) < c.density)
            entry[block] = static_cast<int32_t>(block);
        std::shuffle(entry, entry + slots, random);
      }
  return lists;
}

using BlockOperation = BlockAttentionOutput (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                const BlockLists&, const BlockAttentionOptions&);

// attention_results, and the statistics behind them.
inline AttentionResult run_block_attention(const BlockCase& c, BlockOperation operation, at::ScalarType dtype,
                                           at::ScalarType rounding) {
  std::vector<at::Tensor> statistics;
  AttentionResult result = attention_results(
      c, dtype, rounding, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
        const BlockAttentionOutput output = operation(q, k, v, random_lists(c), {.statistics = c.statistics});
        if (c.statistics != BlockStatistics::none) statistics = {output.block_max, output.block_sum};
        return output;
      });
  result.insert(result.end(), statistics.begin(), statistics.end());
  return result;
}

// Fused in `dtype` against the reference in float64.
inline void expect_matches_reference(const BlockCase& c, at::ScalarType dtype,
                                     BlockOperation operation = block_attention) {
  SCOPED_TRACE(c.name());
  expect_within_rounding(run_block_attention(c, operation, dtype, dtype),
                         run_block_attention(c, block_attention_reference, at::kDouble, dtype),
                         run_block_attention(c, block_attention_reference, dtype, dtype), dtype);
}

inline void expect_matches_in_both_dtypes(const BlockCase& c) {
  expect_matches_reference(c, at::kFloat);
  expect_matches_reference(c, at::kBFloat16);
}

inline BlockCase random_block_case(uint64_t seed) {
  Draw draw(seed);
  const int64_t counts[] = {1, 2, 3, 4, 6}, query_blocks[] = {1, 3, 16, 48, 64, 100, 128};
  BlockCase c{.seed = seed};
  c.heads = counts[draw(0, 4)];
  c.key_heads = draw.divisor(c.heads), c.value_heads = draw.divisor(c.heads);
  c.list_heads = draw.divisor(c.heads);
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
    c.cu_seqlens_q = draw.cu_seqlens(c.queries), c.cu_seqlens_k = draw.cu_seqlens(c.keys);
  }
  return c;
}

}  // namespace longreach::test
