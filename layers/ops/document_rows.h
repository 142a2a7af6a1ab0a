// How packed documents are cut into rows of queries: what block attention and selection share.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace longreach {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One document: its queries, its keys, and the rows (blocks of query_block queries) that speak for it.
struct DocumentRows {
  int64_t query, queries, key, keys, row, rows;
};

// cu_seqlens_*: int32 [N+1] on the CPU, or undefined: one document of `queries` and `keys`.
std::vector<DocumentRows> document_rows(const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k,
                                        int64_t queries, int64_t keys, int64_t query_block);

// Rows of all documents.
int64_t row_count(const std::vector<DocumentRows>& documents);

}  // namespace longreach
