// One packed document and the rows of queries that speak for it: plain data for operators and torch-free
// kernels.
#pragma once
#include <cstdint>

namespace longreach {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One document: its queries, its keys, and the rows (blocks of query_block queries) that speak for it.
struct DocumentRows {
  int64_t query, queries, key, keys, row, rows;
};

}  // namespace longreach
