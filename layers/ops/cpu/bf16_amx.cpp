// The tile-register product. Blocks of 32 x 32 of C in four tiles: each step of 32 in k loads two tiles of A
// and two of B for four products. No static initialisers and no inline library code here: this file is
// compiled for instructions that the CPU may lack.
#include <immintrin.h>

#include "layers/ops/cpu/amx.h"
#include "layers/ops/cpu/bf16_dot.h"

namespace longreach::simd {
namespace {

constexpr int64_t kRows = 16, kPairs = 16;  // of a tile: 16 rows of 64 bytes

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// In static memory: g++ 12 tells its optimizer of eight bytes that ldtilecfg reads, and drops the stores to
// the rest of a local one.
constexpr TileConfig kTiles;

// C tiles 0..3 (row by row), A tiles 4 and 5, B tiles 6 and 7. Numbers of tiles are parts of the
// instructions.
template <bool kTwoRows, bool kTwoColumns>
[[gnu::always_inline]] inline void tile_block(int64_t k, const uint16_t* a, int64_t row, const uint16_t* b,
                                              int64_t ldb, float* c, int64_t ldc, bool accumulate) {
  const int64_t a_step = 2 * row, b_step = 4 * ldb, c_step = 4 * ldc;  // bytes
  const uint16_t* a_below = a + kRows * row;
  float* c_below = c + kRows * ldc;
  if (accumulate) {
    _tile_loadd(0, c, c_step);
    if constexpr (kTwoColumns) _tile_loadd(1, c + kPairs, c_step);
    if constexpr (kTwoRows) _tile_loadd(2, c_below, c_step);
    if constexpr (kTwoRows && kTwoColumns) _tile_loadd(3, c_below + kPairs, c_step);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t i = 0; i < k; i += 2 * kPairs) {
    const uint16_t* pairs = b + i * ldb;
    _tile_loadd(4, a + i, a_step);
    _tile_loadd(6, pairs, b_step);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kTwoColumns) {
      _tile_loadd(7, pairs + 2 * kPairs, b_step);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kTwoRows) {
      _tile_loadd(5, a_below + i, a_step);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (kTwoColumns) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, c, c_step);
  if constexpr (kTwoColumns) _tile_stored(1, c + kPairs, c_step);
  if constexpr (kTwoRows) _tile_stored(2, c_below, c_step);
  if constexpr (kTwoRows && kTwoColumns) _tile_stored(3, c_below + kPairs, c_step);
}

template <bool kTwoRows>
void tile_rows(int64_t n, int64_t k, const uint16_t* a, int64_t row, const uint16_t* b, int64_t ldb, float* c,
               int64_t ldc, bool accumulate) {
  int64_t j = 0;
  for (; j + 2 * kPairs <= n; j += 2 * kPairs)
    tile_block<kTwoRows, true>(k, a, row, b + 2 * j, ldb, c + j, ldc, accumulate);
  if (j < n) tile_block<kTwoRows, false>(k, a, row, b + 2 * j, ldb, c + j, ldc, accumulate);
}

}  // namespace

TileRegisters::TileRegisters() {
  if (has_amx()) _tile_loadconfig(&kTiles);
}
TileRegisters::~TileRegisters() {
  if (has_amx()) _tile_release();
}

void gemm_bf16_amx(int64_t m, int64_t n, int64_t k, const uint16_t* a, int64_t row, const uint16_t* b,
                   int64_t ldb, float* c, int64_t ldc, bool accumulate) {
  const int64_t rows = m / kRows * kRows, inner = k / (2 * kPairs) * (2 * kPairs);
  if (rows > 0 && inner > 0) {
    int64_t i = 0;
    for (; i + 2 * kRows <= rows; i += 2 * kRows)
      tile_rows<true>(n, inner, a + i * row, row, b, ldb, c + i * ldc, ldc, accumulate);
    if (i < rows) tile_rows<false>(n, inner, a + i * row, row, b, ldb, c + i * ldc, ldc, accumulate);
    if (inner < k) gemm_bf16_dot(rows, n, k - inner, {a + inner, row, 2}, b + inner * ldb, ldb, c, ldc, true);
  }
  const int64_t done = inner > 0 ? rows : 0;
  if (done < m)
    gemm_bf16_dot(m - done, n, k, {a + done * row, row, 2}, b, ldb, c + done * ldc, ldc, accumulate);
}

}  // namespace longreach::simd
