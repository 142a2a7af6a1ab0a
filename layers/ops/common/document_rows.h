// How packed documents are cut into rows of queries: what block attention and selection share.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "layers/ops/document.h"

namespace longreach {

// cu_seqlens_*: int32 [N+1] on the CPU, or undefined: one document of `queries` and `keys`.
std::vector<DocumentRows> document_rows(const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k,
                                        int64_t queries, int64_t keys, int64_t query_block);

// Rows of all documents.
int64_t row_count(const std::vector<DocumentRows>& documents);

}  // namespace longreach
