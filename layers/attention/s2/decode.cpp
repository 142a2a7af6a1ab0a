// Decoding of S2-Attention: all keys and values are kept, the pattern's blocks are read.
#include <ATen/core/grad_mode.h>

#include "layers/attention/common/block_decode.h"
#include "layers/attention/s2/module.h"

namespace longreach::s2 {

std::unique_ptr<DecodeState> S2Attention::start_decoding(int64_t batch_size, int64_t max_tokens) const {
  return std::make_unique<KvCache>(batch_size, max_tokens);
}

at::Tensor S2Attention::decode(const at::Tensor& x, DecodeState& state) {
  const at::NoGradGuard no_grad;
  auto& cache = dynamic_cast<KvCache&>(state);
  expect_decode_input(x, cache.batch, cache.used, cache.limit);
  const Heads heads = project(x, next_positions(x, cache.used), cache.used + x.size(1));
  cache.append(heads.k, heads.v);
  const auto lists = [&](const QueryPiece& piece) -> BlockLists {
    const int64_t query_block = piece.starts_block && piece.count > 1 ? pattern_.block_size : 1;
    return {.indices = s2_lists(pattern_, piece.keys(), piece.first, query_block).to(x.device()),
            .query_block = query_block};
  };
  return merge(attend_in_pieces(heads.q, cache, pattern_.block_size, site_.implementation, lists));
}

}  // namespace longreach::s2
