// Rows of queries, document by document.
#include "layers/ops/common/packed_documents.h"

#include <algorithm>

namespace longreach {

std::vector<PackedDocument> packed_documents(const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k,
                                             int64_t queries, int64_t keys, int64_t query_block) {
  if (!cu_seqlens_q.defined()) return {{0, queries, 0, keys, 0, ceil_div(queries, query_block)}};
  const int32_t *q = cu_seqlens_q.const_data_ptr<int32_t>(), *k = cu_seqlens_k.const_data_ptr<int32_t>();
  std::vector<PackedDocument> documents;
  int64_t row = 0;
  for (int64_t n = 0; n + 1 < cu_seqlens_q.numel(); ++n) {
    const int64_t count = q[n + 1] - q[n], rows = ceil_div(count, query_block);
    documents.push_back({q[n], count, k[n], k[n + 1] - k[n], row, rows});
    row += rows;
  }
  return documents;
}

int64_t row_count(const std::vector<PackedDocument>& documents) {
  return documents.empty() ? 0 : documents.back().row + documents.back().rows;
}

int64_t most_blocks(const std::vector<PackedDocument>& documents, int64_t size) {
  int64_t most = 0;
  for (const PackedDocument& document : documents) most = std::max(most, document.blocks(size));
  return most;
}

}  // namespace longreach
