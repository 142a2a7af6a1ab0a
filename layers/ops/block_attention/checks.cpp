// Argument checks of block attention, and the count of rows that lists must have.
#include "layers/ops/block_attention/checks.h"

#include <algorithm>
#include <utility>

#include "layers/ops/common/check.h"
#include "layers/ops/common/packed_documents.h"

namespace longreach {

int64_t query_block_count(const BlockLists& lists, int64_t queries) {
  return row_count(
      packed_documents(lists.cu_seqlens_q, lists.cu_seqlens_q, queries, queries, lists.query_block));
}

void check_block_lists(const BlockLists& lists, int64_t batch, int64_t heads, int64_t queries, int64_t keys) {
  const at::Tensor& indices = lists.indices;
  check<ShapeError>(lists.query_block >= 1 && lists.query_block <= 4096, "query_block: ", lists.query_block,
                    ", expected 1 to 4096");
  check<ShapeError>(
      lists.key_block == 16 || lists.key_block == 32 || lists.key_block == 64 || lists.key_block == 128,
      "key_block: ", lists.key_block, ", expected 16, 32, 64 or 128");
  expect_packed(lists.cu_seqlens_q, lists.cu_seqlens_k, batch, queries, keys);
  expect_defined(indices, "indices");
  expect_dtype(indices, "indices", {at::kInt});
  expect_shape(indices, "indices", {-1, -1, query_block_count(lists, queries), -1});
  check<ShapeError>(indices.size(0) == 1 || indices.size(0) == batch, "indices: ", indices.size(0),
                    " batch entries, expected 1 or ", batch);
  check<ShapeError>(indices.size(1) >= 1 && heads % indices.size(1) == 0, "indices: ", indices.size(1),
                    " heads, expected a divisor of ", heads);
}

void check_block_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const BlockLists& lists) {
  expect_attention_inputs(q, k, v);
  check_block_lists(lists, q.size(0), q.size(2), q.size(1), k.size(1));
  expect_same_device(lists.indices, "indices", q, "q");
}

void check_block_entries(const BlockLists& lists, const std::vector<PackedDocument>& documents) {
  const at::Tensor indices = lists.indices.contiguous();
  const int32_t* entries = indices.const_data_ptr<int32_t>();
  const int64_t rows = indices.size(2), slots = indices.size(3);
  // The last row that listed the block.
  std::vector<int64_t> seen(static_cast<size_t>(most_blocks(documents, lists.key_block)), -1);
  for (int64_t list = 0; list < indices.size(0) * indices.size(1); ++list) {
    for (const PackedDocument& document : documents) {
      const int64_t blocks = document.blocks(lists.key_block);
      for (int64_t row = document.row; row < document.row + document.rows; ++row) {
        const int64_t at = list * rows + row;
        for (int64_t s = 0; s < slots; ++s) {
          const int32_t block = entries[at * slots + s];
          if (block == -1) continue;
          check<ShapeError>(block >= 0 && block < blocks, "indices: block ", block, " in row ", row,
                            ", expected -1 or less than ", blocks, ", the blocks of its document");
          check<ShapeError>(std::exchange(seen[static_cast<size_t>(block)], at) != at, "indices: block ",
                            block, " twice in row ", row);
        }
      }
    }
  }
}

}  // namespace longreach
