// Packed documents and the rows that they are cut into.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "layers/ops/document.h"

namespace longreach {

// Queries, keys and rows. cu_seqlens_*: int32 [N+1] on the CPU, or undefined: one document of `queries` and
// `keys`.
std::vector<PackedDocument> packed_documents(const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k,
                                             int64_t queries, int64_t keys, int64_t query_block);

// Rows of all documents.
int64_t row_count(const std::vector<PackedDocument>& documents);
// Blocks of the longest one.
int64_t most_blocks(const std::vector<PackedDocument>& documents, int64_t size);

}  // namespace longreach
