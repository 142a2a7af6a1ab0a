// Argument checks of block attention.
#pragma once
#include "layers/ops/block_attention/block_attention.h"

namespace longreach {

void check_block_lists(const BlockLists& lists, int64_t batch, int64_t heads, int64_t queries, int64_t keys);
void check_block_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const BlockLists& lists);

}  // namespace longreach
