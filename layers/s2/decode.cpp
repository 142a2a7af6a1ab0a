// Decoding of S2-Attention: all keys and values are kept, the pattern's blocks are read. A piece is cut where a
// block begins, so that a row of the lists lies in one block.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>

#include <algorithm>

#include "layers/kv_cache.h"
#include "layers/ops/block_attention/block_attention.h"
#include "layers/s2/module.h"

namespace longreach::s2 {

std::unique_ptr<DecodeState> S2Attention::start_decoding(int64_t batch_size, int64_t max_tokens) const {
  return std::make_unique<KvCache>(batch_size, max_tokens);
}

at::Tensor S2Attention::decode(const at::Tensor& x, DecodeState& state) {
  const at::NoGradGuard no_grad;
  auto& cache = dynamic_cast<KvCache&>(state);
  expect_decode_input(x, cache.batch, cache.used, cache.limit);
  const int64_t size = pattern_.block_size, tokens = x.size(1), first = cache.used;
  const Heads heads = project(x, consecutive(x.size(0), first, tokens), cache.limit);
  cache.append(heads.k, heads.v);
  std::vector<at::Tensor> pieces;
  for (int64_t begin = 0; begin < tokens;) {
    const int64_t at = first + begin;
    // To the end of the block that has begun, or all that is left.
    const int64_t n = std::min(tokens - begin, at % size == 0 ? tokens - begin : size - at % size);
    const int64_t query_block = at % size == 0 && n > 1 ? size : 1, keys = at + n;
    const BlockLists lists{.indices = s2_lists(pattern_, keys, at, query_block).to(x.device()),
                           .query_block = query_block,
                           .key_block = size};
    const auto attention =
        site_.implementation == Implementation::fused ? block_attention : block_attention_reference;
    pieces.push_back(attention(heads.q.narrow(1, begin, n), cache.keys.narrow(1, 0, keys),
                               cache.values.narrow(1, 0, keys), lists, {})
                         .o);
    begin += n;
  }
  return merge(pieces.size() == 1 ? pieces[0] : at::cat(pieces, 1));
}

}  // namespace longreach::s2
