// Decoding of causal region routing: keys, values, the means of whole regions, and the list of the region that
// is being written. A piece is cut where a region begins: there its first query chooses the list that the
// region's other queries go on with.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>

#include <algorithm>

#include "layers/biformer/module.h"
#include "layers/kv_cache.h"
#include "layers/ops/block_attention/block_attention.h"

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
  const int64_t size = routing_.region, tokens = x.size(1), first = cache.used;
  const Heads heads = project(x, consecutive(x.size(0), first, tokens), cache.limit);
  cache.append(heads.k, heads.v);
  cache.pool(routing_, site_.implementation);
  std::vector<at::Tensor> pieces;
  for (int64_t begin = 0; begin < tokens;) {
    const int64_t at = first + begin;
    const bool starts = at % size == 0;
    const int64_t n = starts ? tokens - begin : std::min(tokens - begin, size - at % size), keys = at + n;
    const at::Tensor q = heads.q.narrow(1, begin, n);
    BlockLists lists{.indices = cache.indices, .query_block = n == 1 ? 1 : size, .key_block = size};
    if (starts) {
      const at::Tensor means = keys < size ? heads.k.narrow(1, 0, 0) : cache.means.narrow(1, 0, keys / size);
      lists.indices = biformer_regions(q, means, keys, at, routing_, {}, site_.implementation);
      cache.indices = lists.indices.narrow(2, lists.indices.size(2) - 1, 1);
    }
    const auto attend =
        site_.implementation == Implementation::fused ? block_attention : block_attention_reference;
    pieces.push_back(attend(q, cache.keys.narrow(1, 0, keys), cache.values.narrow(1, 0, keys), lists, {}).o);
    begin += n;
  }
  return merge(pieces.size() == 1 ? pieces[0] : at::cat(pieces, 1));
}

}  // namespace longreach::biformer
