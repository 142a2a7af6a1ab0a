// Decoding over listed blocks: what mechanisms share whose blocks of queries read lists of blocks of keys.
#pragma once
#include <functional>

#include "layers/attention/common/kv_cache.h"
#include "layers/ops/block_attention/block_attention.h"
#include "layers/ops/common/implementation.h"

namespace longreach {

// New queries that stand at the positions [first, first + count) of a sequence, all in one block or from the
// beginning of one on.
struct QueryPiece {
  int64_t first, count;
  bool starts_block;

  int64_t keys() const { return first + count; }  // up to its last query
};

// The output [B, n, HQ, DV] of q [B, n, HQ, D], the last n tokens of the cache, causally. The queries go in
// pieces of which each row of lists lies in one block of `block_size`; lists_of gives the lists of each, in
// order; its key_block is block_size.
at::Tensor attend_in_pieces(const at::Tensor& q, const KvCache& cache, int64_t block_size,
                            Implementation implementation,
                            const std::function<BlockLists(const QueryPiece&)>& lists_of);

}  // namespace longreach
