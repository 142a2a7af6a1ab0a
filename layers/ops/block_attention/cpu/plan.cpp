// The cutting of work into tiles, the same for every instruction set.
#include <algorithm>
#include <numeric>

#include "layers/ops/block_attention/cpu/plan.h"

namespace longreach::block {
namespace {

// Calls f(document, number of its first block among those of all documents).
template <class F>
void for_documents(const Params& params, F&& f) {
  int64_t block = 0;
  for (int64_t n = 0; n < params.document_count; ++n) {
    f(params.documents[n], block);
    block += params.documents[n].blocks(params.key_block);
  }
}

// Calls f(row of the lists, block among those of all documents) for every entry that sees a key.
template <class F>
void for_entries(const Params& params, int64_t list_batch, int64_t list, F&& f) {
  for_documents(params, [&](const PackedDocument& document, int64_t first_block) {
    for (int64_t r = document.row; r < document.row + document.rows; ++r) {
      const ListRow row = list_row(params, document, r);
      const int64_t visible = row.visible_end(row.first + row.tokens - 1, params.causal) - document.key;
      const int32_t* entries = list_of(params, list_batch, list, r);
      for (int64_t s = 0; s < params.slots; ++s)
        if (entries[s] >= 0 && entries[s] * params.key_block < visible) f(r, first_block + entries[s]);
    }
  });
}

}  // namespace

int64_t heads_per_group(const Params& params) {
  return std::gcd(std::gcd(params.heads / params.key_heads, params.heads / params.value_heads),
                  params.heads / params.list_heads);
}

ListRow list_row(const Params& params, const PackedDocument& document, int64_t row) {
  const int64_t first = (row - document.row) * params.query_block;
  return {&document,
          row,
          document.query + first,
          std::min(params.query_block, document.queries - first),
          document.key + document.keys - document.query - document.queries,
          document.key + document.keys};
}

RowTiles row_tiles(const Params& params) {
  const int64_t heads = heads_per_group(params);
  RowTiles tiles{{}, {0}};
  for_documents(params, [&](const PackedDocument& document, int64_t) {
    for (int64_t r = document.row; r < document.row + document.rows; ++r) {
      const ListRow row = list_row(params, document, r);
      const int64_t pairs = heads * row.tokens;
      for (int64_t begin = 0; begin < pairs; begin += kTile)
        tiles.tiles.push_back({row, begin, std::min(kTile, pairs - begin)});
      tiles.start.push_back(static_cast<int64_t>(tiles.tiles.size()));
    }
  });
  return tiles;
}

const int32_t* list_of(const Params& params, int64_t batch, int64_t list, int64_t row) {
  const int64_t list_batch = params.list_batches > 1 ? batch : 0;
  return params.indices + ((list_batch * params.list_heads + list) * params.rows + row) * params.slots;
}

bool ListWalk::next(ListedKeys& keys) {
  keys.segment_count = 0;
  keys.count = keys.key_end = 0;
  keys.contiguous = true;
  while (slot_ < params_.slots && keys.count < kTile && keys.segment_count < keys.kMaxSegments) {
    const int64_t first = row_.document->key + list_[slot_] * params_.key_block + offset_;
    const int64_t end = std::min(first - offset_ + params_.key_block, end_);
    if (list_[slot_] < 0 || first >= end) {
      ++slot_, offset_ = 0;
      continue;
    }
    const int64_t count = std::min(end - first, kTile);
    if (keys.count + count > kTile) break;
    append(keys, first, count);
    offset_ += count;
  }
  return keys.count > 0;
}

void ListWalk::append(ListedKeys& keys, int64_t first, int64_t count) const {
  keys.contiguous &= keys.count == 0 || first == keys.key[keys.count - 1] + 1;
  keys.segments[keys.segment_count++] = {slot_, first, keys.count, keys.count + count};
  for (int64_t j = 0; j < count; ++j) keys.key[keys.count + j] = static_cast<int32_t>(first + j);
  keys.count += count;
  keys.key_end = std::max(keys.key_end, first + count);
}

std::vector<KeyTile> key_tiles(const Params& params) {
  std::vector<KeyTile> tiles;
  for_documents(params, [&](const PackedDocument& document, int64_t first_block) {
    for (int64_t key = 0; key < document.keys;) {
      const int64_t block = key / params.key_block;
      const int64_t end = std::min({key + kTile, (block + 1) * params.key_block, document.keys});
      tiles.push_back({&document, first_block + block, document.key + key, end - key});
      key = end;
    }
  });
  return tiles;
}

TransposedList transposed(const Params& params, int64_t list_batch, int64_t list) {
  int64_t blocks = 0;
  for_documents(params, [&](const PackedDocument& document, int64_t first_block) {
    blocks = first_block + document.blocks(params.key_block);
  });
  TransposedList result;
  result.start.assign(static_cast<size_t>(blocks) + 1, 0);
  for_entries(params, list_batch, list,
              [&](int64_t, int64_t block) { ++result.start[static_cast<size_t>(block) + 1]; });
  std::partial_sum(result.start.begin(), result.start.end(), result.start.begin());
  result.rows.resize(static_cast<size_t>(result.start.back()));
  std::vector<int64_t> next(result.start.begin(), result.start.end() - 1);
  for_entries(params, list_batch, list, [&](int64_t row, int64_t block) {
    result.rows[static_cast<size_t>(next[static_cast<size_t>(block)]++)] = static_cast<int32_t>(row);
  });
  return result;
}

}  // namespace longreach::block
