// S2-Attention: projections, rotary embedding, one call of block attention over the pattern's lists.
#include "layers/attention/s2/s2.h"

#include <algorithm>

#include "layers/attention/s2/module.h"
#include "layers/ops/block_attention/block_attention.h"
#include "layers/ops/common/packed_documents.h"

namespace longreach {
namespace s2 {

AttentionOutput S2Attention::forward(const at::Tensor& x, const Batch& batch) {
  const Heads heads = project(x, batch);
  if (batch.context) return {merge(attend_context(heads, batch.context)), {}};
  if (site_.implementation == Implementation::reference)
    return {merge(s2_attention_reference(heads.q, heads.k, heads.v, pattern_, batch.cu_seqlens)), {}};
  const BlockLists lists{
      .indices = s2_lists(pattern_, x.size(1), 0, pattern_.block_size, batch.cu_seqlens).to(x.device()),
      .query_block = pattern_.block_size,
      .key_block = pattern_.block_size,
      .cu_seqlens_q = batch.cu_seqlens,
      .cu_seqlens_k = batch.cu_seqlens};
  return {merge(block_attention(heads.q, heads.k, heads.v, lists).o), {}};
}

double S2Attention::flops_per_token(int64_t seq_len) const {
  const int64_t tokens = std::max<int64_t>(seq_len, 1), size = pattern_.block_size;
  double pairs = 0;
  for (int64_t row = 0; row < ceil_div(tokens, size); ++row) {
    const int64_t queries = std::min(size, tokens - row * size);
    int64_t blocks = 0;  // before the query's own
    for (int64_t head = 0; head < pattern_.heads; ++head)
      for (int64_t block = 0; block < row; ++block) blocks += pattern_.keeps(head, row, block);
    pairs += static_cast<double>(queries * blocks * size) / static_cast<double>(pattern_.heads) +
             static_cast<double>(queries * (queries + 1)) / 2.0;
  }
  return flops(pairs / static_cast<double>(tokens));
}

}  // namespace s2

std::shared_ptr<Attention> make_attention(const S2Config& config, const LayerSite& site) {
  return std::make_shared<s2::S2Attention>(config, site);
}

}  // namespace longreach
