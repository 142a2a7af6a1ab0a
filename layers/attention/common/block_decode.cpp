#include "layers/attention/common/block_decode.h"

#include <ATen/ops/cat.h>

#include <algorithm>
#include <vector>

namespace longreach {

at::Tensor attend_in_pieces(const at::Tensor& q, const KvCache& cache, int64_t block_size,
                            Implementation implementation,
                            const std::function<BlockLists(const QueryPiece&)>& lists_of) {
  const int64_t begin = cache.used - q.size(1);
  std::vector<at::Tensor> outputs;
  for (int64_t first = begin; first < cache.used;) {
    const int64_t left = cache.used - first, inside = first % block_size;
    const QueryPiece piece{first, inside == 0 ? left : std::min(left, block_size - inside), inside == 0};
    BlockLists lists = lists_of(piece);
    lists.key_block = block_size;
    outputs.push_back(block_attention_by(implementation, q.narrow(1, first - begin, piece.count),
                                         cache.keys.narrow(1, 0, piece.keys()),
                                         cache.values.narrow(1, 0, piece.keys()), lists)
                          .o);
    first += piece.count;
  }
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs, 1);
}

}  // namespace longreach
