// One packed document: plain data for operators and torch-free kernels.
#pragma once
#include <cstdint>

namespace longreach {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Where one document lies: its tokens among all queries and among all keys, its rows (blocks of query_block
// queries) among all rows, its windows among the pooled keys. Zeros where there are none or nobody asks.
struct PackedDocument {
  int64_t query = 0, queries = 0, key = 0, keys = 0, row = 0, rows = 0, window = 0, windows = 0;

  // Of query i, counted within the document as its keys are: the last query stands at the last key.
  int64_t position(int64_t i) const { return i + keys - queries; }
  // Of `size` keys, the last one cut at the document's end.
  int64_t blocks(int64_t size) const { return ceil_div(keys, size); }
};

}  // namespace longreach
