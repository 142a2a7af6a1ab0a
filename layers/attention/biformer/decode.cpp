// Decoding of causal region routing: keys, values, the means of whole regions, and the list of the region
// that is being written: where a region begins, its first query chooses the list that the region's other
// queries go on with.
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "layers/attention/biformer/module.h"
#include "layers/attention/common/block_decode.h"

namespace longreach::biformer {
namespace {

struct RegionCache : KvCache {
  using KvCache::KvCache;
  int64_t bytes() const override {
    return KvCache::bytes() + static_cast<int64_t>((means.defined() ? means.nbytes() : 0) +
                                                   (indices.defined() ? indices.nbytes() : 0));
  }

  // Means of the regions that have become whole.
  void pool(const BiformerRouting& routing, Implementation implementation) {
    const int64_t whole = used / routing.region;
    if (whole == regions) return;
    const at::Tensor fresh =
        biformer_key_means(keys.narrow(1, regions * routing.region, (whole - regions) * routing.region),
                           routing, {}, implementation);
    const int64_t capacity = means.defined() ? means.size(1) : 0;
    if (whole > capacity)
      means = enlarged_cache(means, fresh, regions, std::max<int64_t>({whole, 2 * capacity, 16}));
    means.narrow(1, regions, whole - regions).copy_(fresh);
    regions = whole;
  }

  at::Tensor means;    // [B, capacity, HK, D], the first `regions` filled
  at::Tensor indices;  // int32 [B, HK, 1, topk]: of the latest region
  int64_t regions = 0;
};

}  // namespace

std::unique_ptr<DecodeState> BiformerAttention::start_decoding(int64_t batch_size, int64_t max_tokens) const {
  return std::make_unique<RegionCache>(batch_size, max_tokens);
}

at::Tensor BiformerAttention::decode(const at::Tensor& x, DecodeState& state) {
  const at::NoGradGuard no_grad;
  auto& cache = dynamic_cast<RegionCache&>(state);
  expect_decode_input(x, cache.batch, cache.used, cache.limit);
  const Heads heads = project(x, next_positions(x, cache.used), cache.used + x.size(1));
  cache.append(heads.k, heads.v);
  cache.pool(routing_, site_.implementation);
  const auto lists = [&](const QueryPiece& piece) -> BlockLists {
    const int64_t size = routing_.region, query_block = piece.count == 1 ? 1 : size;
    if (!piece.starts_block) return {.indices = cache.indices, .query_block = query_block};
    const at::Tensor means =
        piece.keys() < size ? heads.k.narrow(1, 0, 0) : cache.means.narrow(1, 0, piece.keys() / size);
    const at::Tensor queries = heads.q.narrow(1, piece.first + x.size(1) - cache.used, piece.count);
    const at::Tensor indices =
        biformer_regions(queries, means, piece.keys(), piece.first, routing_, {}, site_.implementation);
    cache.indices = indices.narrow(2, indices.size(2) - 1, 1);
    return {.indices = indices, .query_block = query_block};
  };
  return merge(attend_in_pieces(heads.q, cache, routing_.region, site_.implementation, lists));
}

}  // namespace longreach::biformer
