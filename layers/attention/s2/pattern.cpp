// The pattern of S2-Attention, its lists, and the config that names it.
#include <ATen/ops/empty.h>

#include <algorithm>

#include "core/error.h"
#include "layers/attention/s2/s2.h"
#include "layers/ops/common/packed_documents.h"

namespace longreach {

void S2Config::fields(FieldVisitor& visit) {
  visit.field("block_size", block_size,
              {.help = "tokens a block: 16, 32, 64 or 128", .allowed = between(16, 128)});
  if (block_size != 16 && block_size != 32 && block_size != 64 && block_size != 128)
    visit.reject("block_size", text(block_size, ", expected 16, 32, 64 or 128"));
  visit.field("local_blocks", local_blocks,
              {.help = "latest key blocks every head reads, the query's own included (Phi-3-small: 16)",
               .allowed = at_least(1)});
  visit.field(
      "vert_stride", vert_stride,
      {.help = "of the earlier blocks a head reads one in so many (Phi-3-small: 8)", .allowed = at_least(1)});
  visit.field("head_sliding_offset", head_sliding_offset,
              {.help = "head n reads block 0 for offset n; 1 is the rule of Phi-3-small in vLLM",
               .allowed = at_least(0)});
  visit.field(
      "head_sliding_step", head_sliding_step,
      {.help = "blocks by which the strides of neighbouring heads differ; 0: max(1, vert_stride / heads)",
       .allowed = at_least(0)});
  visit.field("num_dense_heads", num_dense_heads,
              {.help = "how many heads, the last, read every block; counted as pattern_per says",
               .allowed = at_least(0)});
  visit.field("homo_head", homo_head, {.help = "the same strides for every head"});
  visit.field("pattern_per", pattern_per,
              {.help = "heads that have strides of their own: kv_head is the authors', query_head vLLM's",
               .allowed = one_of({"kv_head", "query_head"})});
  visit.field("rope", rope, {.help = "rotary embedding on q and k"});
}

void S2Pattern::check() const {
  longreach::check<ConfigError>(block_size >= 1 && local_blocks >= 1 && local_after >= 1 && vert_stride >= 1,
                                "block_size, local_blocks, vert_stride: ", block_size, ", ", local_blocks,
                                ", ", vert_stride, ", expected at least 1");
  longreach::check<ConfigError>(head_sliding_offset >= 0 && head_sliding_step >= 0,
                                "head_sliding_offset, head_sliding_step: ", head_sliding_offset, ", ",
                                head_sliding_step, ", expected at least 0");
  longreach::check<ConfigError>(num_dense_heads >= 0 && num_dense_heads <= heads,
                                "num_dense_heads: ", num_dense_heads, ", expected 0 to ", heads);
}

bool S2Pattern::keeps(int64_t head, int64_t row, int64_t block) const {
  const bool dense = head >= heads - num_dense_heads;
  const int64_t back = row - block;
  if (causal)
    return back >= 0 && (dense || back < local_blocks ||
                         (block + head * head_sliding_step + head_sliding_offset) % vert_stride == 0);
  // Blocks beyond the window, counted from its border.
  const int64_t beyond =
      std::max<int64_t>(back - local_blocks + 1, 0) + std::max<int64_t>(-back - local_after + 1, 0);
  return dense || beyond % vert_stride == 0;
}

void S2Config::validate(const LayerSite& site) const { s2_pattern(*this, site.num_heads, site.num_kv_heads); }

S2Pattern s2_pattern(const S2Config& config, int64_t num_heads, int64_t num_kv_heads) {
  check<ConfigError>(!config.homo_head || config.num_dense_heads == 0,
                     "num_dense_heads: ", config.num_dense_heads, ", expected 0 with homo_head");
  S2Pattern pattern{.block_size = config.block_size,
                    .local_blocks = config.local_blocks,
                    .vert_stride = config.vert_stride,
                    .head_sliding_offset = config.head_sliding_offset,
                    .head_sliding_step = config.head_sliding_step,
                    .num_dense_heads = config.num_dense_heads};
  pattern.heads = config.homo_head ? 1 : config.pattern_per == "kv_head" ? num_kv_heads : num_heads;
  if (config.head_sliding_step == 0)
    pattern.head_sliding_step = std::max<int64_t>(1, config.vert_stride / (config.homo_head ? 1 : num_heads));
  pattern.check();
  return pattern;
}

at::Tensor s2_block_mask(const S2Pattern& pattern, int64_t blocks, int64_t past) {
  pattern.check();
  check<ShapeError>(past >= 0 && past <= blocks, "past: ", past, " blocks, expected 0 to ", blocks);
  at::Tensor mask = at::empty({pattern.heads, blocks - past, blocks}, at::kBool);
  bool* to = mask.mutable_data_ptr<bool>();
  for (int64_t head = 0; head < pattern.heads; ++head)
    for (int64_t row = past; row < blocks; ++row)
      for (int64_t block = 0; block < blocks; ++block) *to++ = pattern.keeps(head, row, block);
  return mask;
}

at::Tensor s2_lists(const S2Pattern& pattern, int64_t tokens, int64_t first, int64_t query_block,
                    const at::Tensor& cu_seqlens) {
  pattern.check();
  check<ShapeError>(query_block >= 1 && pattern.block_size % query_block == 0 && first >= 0 &&
                        first <= tokens && (first % query_block == 0),
                    "query_block: ", query_block, " from token ", first, ", expected rows within blocks of ",
                    pattern.block_size);
  const auto documents = packed_documents(cu_seqlens, cu_seqlens, tokens - first, tokens, query_block);
  std::vector<std::vector<int32_t>> lists;
  size_t longest = 0;
  for (int64_t head = 0; head < pattern.heads; ++head)
    for (const PackedDocument& document : documents)
      for (int64_t r = 0; r < document.rows; ++r) {
        const int64_t row = document.position(r * query_block) / pattern.block_size,
                      blocks = pattern.causal ? row + 1 : document.blocks(pattern.block_size);
        std::vector<int32_t>& list = lists.emplace_back();
        for (int64_t block = 0; block < blocks; ++block)
          if (pattern.keeps(head, row, block)) list.push_back(static_cast<int32_t>(block));
        longest = std::max(longest, list.size());
      }
  at::Tensor indices =
      at::empty({1, pattern.heads, row_count(documents), static_cast<int64_t>(longest)}, at::kInt);
  int32_t* to = indices.mutable_data_ptr<int32_t>();
  for (const std::vector<int32_t>& list : lists) {
    std::fill(std::copy(list.begin(), list.end(), to), to + longest, -1);
    to += longest;
  }
  return indices;
}

}  // namespace longreach
