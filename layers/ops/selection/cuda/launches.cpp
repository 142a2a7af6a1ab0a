#include "layers/ops/selection/cuda/launches.h"

#include "layers/ops/selection/cuda/plan.h"

namespace longreach::selection {

using namespace cuda::problem;

void add_launches(cuda::NamedLaunches& all) {
  const int64_t windows = (kTokens - 32) / 16 + 1, blocks = kTokens / 64;
  RuleParams rule{.documents = {{.keys = kTokens, .rows = kTokens, .windows = windows}},
                  .budgets = {kListed},
                  .rows = kTokens,
                  .blocks = blocks,
                  .size = kListed};
  rule.indices = rule.status = nowhere<int32_t>();
  const double lists = static_cast<double>(kTokens * kListed) * 4,
               scores = static_cast<double>(kTokens * blocks) / 2 * 4;
  all.add("selection",
          plan_choose({.rule = rule, .lists = 1, .scores = nowhere<const float>()}, nullptr).launches,
          traffic(scores + lists));
  for (const DType dtype : kDtypes) {
    for (const int64_t size : {64, 128}) {
      SelectParams p{.rule = rule, .dtype = dtype, .batches = 1, .key_count = windows, .heads = kHeads};
      p.key_heads = p.lists = 1, p.size = size, p.width = 32, p.stride = 16;
      p.visible = CudaVisible::complete;
      p.q = {nowhere(), kTokens * kHeads * size, kHeads * size, size};
      p.k = {nowhere(), windows * size, size, size};
      const double elements = static_cast<double>((kTokens * kHeads + windows) * size);
      const cuda::Work work{static_cast<double>(kTokens * kHeads * windows * size),
                            elements * bytes_of(dtype) + lists, arithmetic_of(dtype)};
      all.add("selection", plan_select(p, nullptr).launches, [=](const std::string&) { return work; });
    }
    const PackedDocument document{.keys = kTokens, .windows = blocks};
    const PoolKind pools[] = {PoolKind::max, PoolKind::min, PoolKind::mean};
    Pooling pool{.dtype = dtype, .batches = 1, .heads = kHeads, .size = 128, .width = 64, .stride = 64};
    pool.documents = &document, pool.document_count = 1, pool.tokens = kTokens, pool.windows = blocks;
    pool.pools = pools, pool.pool_count = 3, pool.picking = 2;
    pool.x = {nowhere(), kTokens * kHeads * 128, kHeads * 128, 128};
    pool.pooled = {nowhere(), blocks * kHeads * 384, kHeads * 384, 384};
    pool.picked = nowhere<int32_t>();
    const double moved =
        static_cast<double>(kHeads * 128) *
        (static_cast<double>(kTokens + 3 * blocks) * bytes_of(dtype) + static_cast<double>(2 * blocks) * 4);
    all.add("selection", plan_pool(pool, nullptr).launches, traffic(moved));
    all.add("selection", plan_pool_backward(pool, nullptr).launches, traffic(moved));
  }
}

}  // namespace longreach::selection
