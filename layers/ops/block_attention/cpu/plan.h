// How the work of block attention is cut on the CPU: rows of query tiles, tiles of listed keys, transposed
// lists.
#pragma once
#include <cstdint>
#include <vector>

#include "layers/ops/block_attention/kernels.h"
#include "layers/ops/cpu/packed.h"

namespace longreach::block {

using softmax_tile::KeyValueRows;
using softmax_tile::kTile;
using softmax_tile::PackedHeads;

// Consecutive query heads that share their list, key head and value head: as many for every group, so that
// group g holds the heads [g n, (g + 1) n).
int64_t heads_per_group(const Params& params);

// One row of the lists.
struct ListRow {
  const PackedDocument* document;
  int64_t row;            // of the lists
  int64_t first, tokens;  // its queries
  // Query i stands at key i + shift and sees keys below visible_end(i): positions on the tensor's key axis.
  int64_t shift, key_end;

  int64_t visible_end(int64_t query, bool causal) const {
    return causal && query + shift + 1 < key_end ? query + shift + 1 : key_end;
  }
};
ListRow list_row(const Params& params, const PackedDocument& document, int64_t row);

// Pairs (head, query) of one row of the lists and one group of heads that share a tile: pairs are counted
// head by head, and these are [begin, begin + count).
struct RowTile {
  ListRow row;
  int64_t begin, count;

  // Calls f(column, count, head of the group, query) for every stretch of consecutive queries of one head.
  template <class F>
  void for_runs(F&& f) const {
    for (int64_t i = 0; i < count;) {
      const int64_t token = (begin + i) % row.tokens, left = row.tokens - token,
                    run = left < count - i ? left : count - i;
      f(i, run, (begin + i) / row.tokens, row.first + token);
      i += run;
    }
  }
  bool one_run() const { return begin % row.tokens + count <= row.tokens; }
};

struct RowTiles {
  std::vector<RowTile> tiles;
  std::vector<int64_t> start;  // of row r: tiles [start[r], start[r + 1])
};
RowTiles row_tiles(const Params& params);

// The list of row `row` of list head `list`: `slots` entries.
const int32_t* list_of(const Params& params, int64_t batch, int64_t list, int64_t row);

// Up to kTile keys of listed blocks, small blocks together: keys [first_key, first_key + to - from) of block
// number `slot` of the list are rows [from, to) of the tile.
struct ListedKeys {
  static constexpr int kMaxSegments = 8;
  struct Segment {
    int64_t slot, first_key, from, to;
  };
  Segment segments[kMaxSegments];
  int segment_count = 0;
  int64_t count = 0, key_end = 0;       // key_end: one past the largest key
  bool contiguous = true;               // the keys follow one another in memory
  alignas(64) int32_t key[kTile] = {};  // of each row
};

// Walks over a list. Keys from `visible_end` on are left out.
class ListWalk {
 public:
  ListWalk(const Params& params, const ListRow& row, const int32_t* list, int64_t visible_end)
      : params_(params), row_(row), list_(list), end_(visible_end) {}
  bool next(ListedKeys& keys);

 private:
  void append(ListedKeys& keys, int64_t first, int64_t count) const;

  const Params& params_;
  const ListRow& row_;
  const int32_t* list_;
  int64_t end_, slot_ = 0, offset_ = 0;
};

// Up to kTile keys of one block.
struct KeyTile {
  const PackedDocument* document;
  int64_t block;         // among the blocks of all documents
  int64_t first, count;  // keys
};
// In the order of keys: all keys are in one tile each.
std::vector<KeyTile> key_tiles(const Params& params);

// For each block of keys the rows of the lists that name it and see something of it, ascending.
struct TransposedList {
  std::vector<int64_t> start;  // of block b: rows [start[b], start[b + 1])
  std::vector<int32_t> rows;
};
TransposedList transposed(const Params& params, int64_t list_batch, int64_t list);

// What a forward task does: one tile of rows of the heads from `head` on.
struct TileWork {
  const Params* params;
  const RowTile* tile;
  int64_t batch, head;
  KeyValueRows key_values;  // row 0 is key 0
};

// What a backward task does: tiles [first, last) of keys of one unit against one chunk of the queries.
struct UnitWork {
  const Params* params;
  const Gradients* gradients;
  const TransposedList* lists;  // of all list heads of the batch entry
  const KeyTile* tiles;
  int64_t first, last;
  int64_t batch, head, heads;  // of the unit
  int64_t group;               // heads that share their list, key head and value head
  int64_t chunk, chunks;
  const float* delta;          // [batches, heads, queries]
  const PackedHeads *q, *d_o;  // slot 0 is the first head of the unit
  // fp32 accumulator of dQ, from the first head of the unit on.
  float* dq;
  int64_t dq_token, dq_head;
  // Null: dK and dV go to the outputs. Else parts of them, part_floats(...) a tile.
  float* parts;

  int64_t key_heads() const { return heads * params->key_heads / params->heads; }
  int64_t value_heads() const { return heads * params->value_heads / params->heads; }
};

// dK^T and dV^T of one tile of keys, for the key and value heads of a unit.
inline int64_t part_floats(const Params& params, int64_t key_heads, int64_t value_heads) {
  return kTile * (key_heads * params.qk_size + value_heads * params.v_size);
}

}  // namespace longreach::block
