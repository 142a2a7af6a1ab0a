// One sequence over several ranks: the pattern says which blocks a piece reads, so nobody has to ask.
#include "layers/attention/common/context/chosen_blocks.h"
#include "layers/attention/common/context/head_share.h"
#include "layers/attention/common/context/places.h"
#include "layers/attention/common/context/planned_rows.h"
#include "layers/attention/s2/module.h"
#include "layers/ops/document.h"

namespace longreach::s2 {
namespace {

// Blocks before a continued piece that one of `heads` of some of its rows keeps.
std::vector<int64_t> blocks_read(const S2Pattern& pattern, const Interval& heads, const Piece& piece) {
  const int64_t first = piece.before() / pattern.block_size,
                rows = ceil_div(piece.tokens, pattern.block_size);
  const auto read = [&](int64_t block) {
    for (int64_t head = heads.begin; head < heads.end; ++head)
      for (int64_t row = first; row < first + rows; ++row)
        if (pattern.keeps(head, row, block)) return true;
    return false;
  };
  std::vector<int64_t> blocks;
  for (int64_t block = 0; block < first; ++block)
    if (read(block)) blocks.push_back(block);
  return blocks;
}

}  // namespace

at::Tensor S2Attention::attend_context(const Heads& heads,
                                       const std::shared_ptr<const ContextGroup>& context) const {
  const HeadShare share(context, site_.num_kv_heads, *this, heads.q.scalar_type());
  const Heads own_heads = share.to_heads(heads);
  const int64_t size = pattern_.block_size;
  std::vector<BlockLists> lists;
  for (const Piece& piece : share.context()->pieces()) {
    BlockLists& own = lists.emplace_back(BlockLists{.query_block = size, .key_block = size});
    own.cu_seqlens_q = own.cu_seqlens_k = cu_seqlens_of(piece);
    const int64_t before = piece.before();
    own.indices = share.own(s2_lists(pattern_, before + piece.tokens, before, size, own.cu_seqlens_q), 1)
                      .to(heads.q.device());
  }
  const auto blocks_of = [&](int, const Piece& piece) {
    return blocks_read(pattern_, share.own(pattern_.heads), piece);
  };
  return share.to_tokens(attend_blocks_in_context(share.context(), own_heads, lists, size, blocks_of,
                                                  block_operators(site_.implementation))
                             .o);
}

PlannedTraffic S2Attention::planned_traffic(const std::shared_ptr<const ContextGroup>& context,
                                            at::ScalarType dtype) const {
  const HeadShare share(context, site_.num_kv_heads, *this, dtype);
  PlannedTraffic plan;
  plan_heads(plan, share, site_);
  const auto blocks_of = [&](int, const Piece& piece) {
    return blocks_read(pattern_, share.own(pattern_.heads), piece);
  };
  plan_keys(plan, {share.context(), history_of_blocks(blocks_of, pattern_.block_size)},
            2 * share.own(site_.num_kv_heads).size() * site_.head_dim, dtype);
  return plan;
}

}  // namespace longreach::s2
