// Argument checks of block attention.
#pragma once
#include <vector>

#include "layers/ops/block_attention/block_attention.h"
#include "layers/ops/document.h"

namespace longreach {

void check_block_lists(const BlockLists& lists, int64_t batch, int64_t heads, int64_t queries, int64_t keys);
void check_block_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const BlockLists& lists);

// Entries themselves, for lists on the CPU: -1 or a block of the row's document, none twice in a row.
void check_block_entries(const BlockLists& lists, const std::vector<PackedDocument>& documents);

}  // namespace longreach
