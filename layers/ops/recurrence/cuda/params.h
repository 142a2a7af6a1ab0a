// Parameter structs of the CUDA recurrence kernels: what plan.cpp fills in and the kernels read. No CUDA
// header.
#pragma once
#include <cstdint>

namespace longreach::recurrence_cuda {

inline constexpr int kChunk = 64;  // tokens a chunk, and the side of every tile
inline constexpr int kThreads = 128;

// One list entry a chunk, in the order of the sequences.
struct Chunk {
  int64_t row = 0;     // batch row
  int64_t first = 0;   // first token in the row
  int32_t tokens = 0;  // 1 to kChunk
  int32_t unused = 0;
};

struct ChunkRange {  // of one sequence
  int64_t first = 0, count = 0;
};

// [row, token, head, dense] elements; query head h reads head h / share. vectors: every row is 16-byte
// aligned.
struct Operand {
  void* data = nullptr;
  int64_t row = 0, token = 0, head = 0;
  int32_t share = 1, vectors = 0;
};

// Decays of one chunk and head, 64 numbers each; those of exponents in powers of 2. A token that forgets
// everything adds 0 to the sums, and products across it are set to 0 by index.
enum Table : int { kHigh, kLow, kReset, kBefore, kAfter, kTableRows };

// Shared memory, in bytes; rows of 16-bit tiles are swizzled, those of fp32 tiles and states padded.
constexpr int tile_row_elements(int element_bytes) { return element_bytes == 2 ? kChunk : kChunk + 4; }
constexpr int tile_bytes(int element_bytes) {
  return kChunk * tile_row_elements(element_bytes) * element_bytes;
}
inline constexpr int kStateBytes = kChunk * (kChunk + 8) * 4;
inline constexpr int kTableBytes = kTableRows * kChunk * 4;
constexpr int slice_bytes(int element_bytes) { return 2 * tile_bytes(element_bytes) + kStateBytes; }
constexpr int slice_buffers(int element_bytes) { return element_bytes == 2 ? 2 : 1; }

struct TableParams {
  const Chunk* chunks;
  const float* log_decay;  // null: no decay
  int64_t row, token, head;
  int32_t heads, per_token;
  float* tables;  // [chunks, heads, kTableRows, 64]
};

// sums[chunk, head] = scale x^T diag(factor) z, [x_width, z_width], over the chunk's tokens.
struct SumParams {
  const Chunk* chunks;
  Operand x, z;
  const float* tables;
  float* sums;                              // [chunks, heads, rows, columns]
  int32_t x_width, z_width, rows, columns;  // rows, columns: widths padded to 16
  int32_t heads, factor;                    // factor: kBefore or kAfter
  float scale;
};

// Over the chunks of a sequence: sums become states. Forward: the state at the start of each chunk; reverse:
// the gradient of the state at its end.
struct ScanParams {
  const ChunkRange* ranges;
  const float* tables;
  float* sums;          // [chunks, heads, rows, columns], in place
  const float* start;   // [N, heads, dk, dv] or null: zero
  float* end;           // [N, heads, dk, dv] or null
  const float* states;  // reverse: as the forward scan left them
  // reverse: [chunks, heads, rows * columns / 128], parts of total <state, gradient>; or null.
  float* borders;
  int64_t sequences;
  int32_t heads, dk, dv, rows, columns;
  int32_t vectors;  // start and end can be read 16 bytes at a time
  int32_t reverse;
};

// y = (intra_scale x1 x2^T .* M) x3 + state_scale diag(factor) x1 state, summed over the query heads that
// share a head of y. M: decays from column to row for columns up to the row, or from row to column for rows
// up to the column.
struct OutputParams {
  const Chunk* chunks;
  Operand x1, x2, x3, y;
  Operand x4;  // of the shape of y: row_dots[r] = state part of y . x4; used where row_dots is not null
  const float* tables;
  const float* states;    // [chunks, heads, rows, columns]
  float* row_dots;        // [chunks, heads, tiles, 64] or null
  float* crossings;       // [chunks, heads, tiles, 64] or null: sums of pairs around each token (dQ alone)
  int32_t inner, outer;   // columns of x1, x2; of x3, y
  int32_t rows, columns;  // of a state, padded
  int32_t heads, group, tiles;
  float intra_scale, state_scale;
};

struct DecayGradientParams {
  const Chunk* chunks;
  const float *tables, *query_dots, *key_dots, *crossings, *borders;
  int32_t heads, tiles, border_parts;
  int64_t row;           // elements of d_log_decay a batch row
  float* d_log_decay;    // per token: [row, token, heads]; or null
  double* d_head_decay;  // per head: [chunks, heads]; or null
};

// One token: state <- a state + k v^T, o = scale q^T state. Operands without tokens: [row, head, dense].
struct StepParams {
  Operand q, k, v, o;
  const float* log_decay;  // null: none; element [row * decay_row + head * decay_head]
  int64_t decay_row, decay_head;
  const float* state;  // [B, heads, dk, dv]
  float* new_state;    // may be state
  int32_t heads, dk, dv;
  int32_t vectors;  // states can be read 16 bytes at a time
  float scale;
};

}  // namespace longreach::recurrence_cuda
