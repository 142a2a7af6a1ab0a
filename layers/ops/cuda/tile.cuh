// Tiles of rows in shared memory. Rows are stored without gaps; the 16-byte chunks of a row are permuted by
// its number (XOR), so that the eight rows of one 8x8 matrix at one column lie in eight different bank
// groups.
#pragma once
#include "layers/ops/cuda/ptx.cuh"

namespace longreach::cuda {

// Rows of kRowBytes: a multiple of 128, or an odd multiple of 64 (then two neighbouring rows already differ
// by half of the banks, and pairs of rows share a permutation of four chunks).
template <int kRowBytes>
struct Tile {
  static_assert(kRowBytes % 64 == 0);
  static constexpr int kBytes = kRowBytes, kChunks = kRowBytes / 16;
  static constexpr int kPermuted = kChunks % 8 == 0 ? 8 : 4;

  static __device__ __forceinline__ int permutation(int row) {
    return kPermuted == 8 ? row & 7 : (row >> 1) & 3;
  }
  // Bytes from the start of a tile, which begins at a multiple of eight rows.
  static __device__ __forceinline__ int offset(int row, int chunk) {
    const int permuted = (chunk & (kPermuted - 1)) ^ permutation(row);
    return row * kRowBytes + permuted * 16 + (chunk & ~(kPermuted - 1)) * 16;
  }
};

// Starts the copy of kRows rows, the first `rows` of which have `row_bytes` bytes each at row_pointer(row)
// (16-byte aligned); everything else becomes zero. All kThreads threads of the block take part.
template <int kRows, int kRowBytes, int kThreads, class RowPointer>
__device__ __forceinline__ void gather_tile(uint32_t tile, int rows, int row_bytes, RowPointer row_pointer) {
  using Layout = Tile<kRowBytes>;
#pragma unroll 1
  for (int index = static_cast<int>(threadIdx.x); index < kRows * Layout::kChunks; index += kThreads) {
    const int row = index / Layout::kChunks, chunk = index % Layout::kChunks;
    const int bytes = row < rows ? min(max(row_bytes - chunk * 16, 0), 16) : 0;
    const char* source = row_pointer(bytes > 0 ? row : 0) + (bytes > 0 ? chunk * 16 : 0);
    ptx::cp_async_16(tile + Layout::offset(row, chunk), source, bytes);
  }
}

// The largest power of two up to n; multiples of eight beyond.
template <int n>
inline constexpr int kRowStep = n >= 8   ? n / 8 * 8
                                : n >= 4 ? 4
                                : n >= 2 ? 2
                                         : 1;

// The same for rows that lie `stride` bytes apart from `first` on. Each thread keeps to one column and steps
// down by a fixed number of rows, so that one pointer is all it holds. The bits of its first row and of the
// steps do not meet, hence the permutations of both combine by XOR.
template <int kRows, int kRowBytes, int kThreads>
__device__ __forceinline__ void load_tile(uint32_t tile, int rows, int row_bytes, const char* first,
                                          int64_t stride) {
  using Layout = Tile<kRowBytes>;
  constexpr int kStep = kRowStep<kThreads / Layout::kChunks>;
  static_assert(kThreads >= Layout::kChunks);
  const int thread = static_cast<int>(threadIdx.x);
  const int row = thread / Layout::kChunks, chunk = thread % Layout::kChunks;
  if (kStep * Layout::kChunks < kThreads && row >= kStep) return;
  const int bytes = min(max(row_bytes - chunk * 16, 0), 16);
  const int permuted = (chunk & (Layout::kPermuted - 1)) ^ Layout::permutation(row);
  const uint32_t start = tile + row * kRowBytes + (chunk & ~(Layout::kPermuted - 1)) * 16;
  const char* source = first + row * stride + chunk * 16;
#pragma unroll 8
  for (int i = 0; i < (kRows + kStep - 1) / kStep; ++i) {
    const int at = row + i * kStep;
    const uint32_t target = start + i * kStep * kRowBytes + (permuted ^ Layout::permutation(i * kStep)) * 16;
    if (kRows % kStep == 0 || at < kRows) ptx::cp_async_16(target, source, at < rows ? bytes : 0);
    source += kStep * stride;
  }
}

// Runs compute(cursor, stage) for every position of a cursor (valid(), advance()), with load(cursor, stage)
// one position ahead: one barrier a step when kStages is 2. `load` only starts copies.
template <int kStages, class Cursor, class Load, class Compute>
__device__ __forceinline__ void stream_tiles(Cursor cursor, Load load, Compute compute) {
  static_assert(kStages == 1 || kStages == 2);
  if (kStages == 2 && cursor.valid()) {
    load(cursor, 0);
    ptx::cp_async_commit();
  }
  int stage = 0;
  while (cursor.valid()) {
    if (kStages == 1) {
      __syncthreads();  // everyone is done with the last tile
      load(cursor, 0);
      ptx::cp_async_commit();
    }
    ptx::cp_async_wait<0>();
    __syncthreads();
    Cursor next = cursor;
    next.advance();
    if (kStages == 2 && next.valid()) {
      load(next, stage ^ 1);
      ptx::cp_async_commit();
    }
    compute(cursor, stage);
    cursor = next;
    if (kStages == 2) stage ^= 1;
  }
  ptx::cp_async_wait<0>();
  __syncthreads();
}

}  // namespace longreach::cuda
