// Register-only multiply-add loops. Operands come through volatile memory and every accumulator starts at a
// value of its own: with equal or known ones a compiler merges the accumulators and the loop reports a
// multiple of the peak.
#include "layers/ops/cpu/peak.h"

#include <algorithm>
#include <cstdint>
#include <ctime>

#include "layers/ops/cpu/amx.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace longreach {

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

Peak larger(const Peak& a, const Peak& b) {
  return {.float32 = std::max(a.float32, b.float32), .bfloat16 = std::max(a.bfloat16, b.bfloat16)};
}

// The best of many short runs: a rate below the peak is easy to come by, one above it is not. The first 20 ms
// let the clock of the CPU rise.
double best_rate(const std::function<double()>& loop, const std::function<double()>& seconds) {
  double best = 0, spent = 0;
  while (spent < 0.06) {
    const double start = seconds();
    const double operations = loop();
    const double taken = seconds() - start;
    spent += taken;
    best = std::max(best, operations / taken);
  }
  return best;
}

#if defined(__x86_64__)
namespace {

// Latency 4 times two ports needs 8 chains; 12 leave slack and, with two operands, fit 16 registers.
constexpr int kChains = 12;
constexpr int64_t kSteps = 20000;
volatile float opaque[16] = {0.5f, 0.25f, 1.5f, 2.5f,  3.5f,  4.5f,  5.5f,  6.5f,
                             7.5f, 8.5f,  9.5f, 10.5f, 11.5f, 12.5f, 13.5f, 14.5f};
volatile float sink;

__attribute__((target("avx2,fma"))) double avx2_float32() {
  const __m256 factor = _mm256_set1_ps(opaque[0]), term = _mm256_set1_ps(opaque[1]);
  __m256 sums[kChains];
  for (int c = 0; c < kChains; ++c) sums[c] = _mm256_set1_ps(opaque[2 + c]);
  for (int64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = _mm256_fmadd_ps(sums[c], factor, term);
  }
  for (int c = 1; c < kChains; ++c) sums[0] = _mm256_add_ps(sums[0], sums[c]);
  sink = _mm256_cvtss_f32(sums[0]);
  return 2.0 * 8 * kChains * kSteps;
}

__attribute__((target("avx512f"))) double avx512_float32() {
  const __m512 factor = _mm512_set1_ps(opaque[0]), term = _mm512_set1_ps(opaque[1]);
  __m512 sums[kChains];
  for (int c = 0; c < kChains; ++c) sums[c] = _mm512_set1_ps(opaque[2 + c]);
  for (int64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = _mm512_fmadd_ps(sums[c], factor, term);
  }
  for (int c = 1; c < kChains; ++c) sums[0] = _mm512_add_ps(sums[0], sums[c]);
  sink = _mm512_cvtss_f32(sums[0]);
  return 2.0 * 16 * kChains * kSteps;
}

__attribute__((target("avx512f,avx512vl,avx512bf16"))) double avx512_bfloat16() {
  const __m512bh factor = _mm512_cvtne2ps_pbh(_mm512_set1_ps(opaque[0]), _mm512_set1_ps(opaque[1]));
  const __m512bh other = _mm512_cvtne2ps_pbh(_mm512_set1_ps(opaque[2]), _mm512_set1_ps(opaque[3]));
  __m512 sums[kChains];
  for (int c = 0; c < kChains; ++c) sums[c] = _mm512_set1_ps(opaque[2 + c]);
  for (int64_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = _mm512_dpbf16_ps(sums[c], factor, other);
  }
  for (int c = 1; c < kChains; ++c) sums[0] = _mm512_add_ps(sums[0], sums[c]);
  sink = _mm512_cvtss_f32(sums[0]);
  return 2.0 * 32 * kChains * kSteps;
}

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// In static memory: g++ 12 tells its optimizer of eight bytes that ldtilecfg reads, and drops the stores to
// the rest of a local one.
constexpr TileConfig kTiles;

__attribute__((target("amx-tile,amx-bf16"))) double amx_bfloat16() {
  _tile_loadconfig(&kTiles);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  constexpr int64_t kTileSteps = kSteps / 10;
  for (int64_t step = 0; step < kTileSteps; ++step) {
    _tile_dpbf16ps(0, 6, 7);
    _tile_dpbf16ps(1, 6, 7);
    _tile_dpbf16ps(2, 6, 7);
    _tile_dpbf16ps(3, 6, 7);
    _tile_dpbf16ps(4, 6, 7);
    _tile_dpbf16ps(5, 6, 7);
  }
  _tile_release();
  return 2.0 * 16 * 16 * 32 * 6 * kTileSteps;
}

double rate_of(double (*loop)()) { return best_rate(loop, thread_seconds); }

}  // namespace

Peak measure_peak() {
  Peak peak;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) peak.float32 = rate_of(avx2_float32);
  if (__builtin_cpu_supports("avx512f")) peak.float32 = std::max(peak.float32, rate_of(avx512_float32));
  peak.bfloat16 = peak.float32;
  if (__builtin_cpu_supports("avx512bf16")) peak.bfloat16 = std::max(peak.bfloat16, rate_of(avx512_bfloat16));
  if (simd::has_amx()) peak.bfloat16 = std::max(peak.bfloat16, rate_of(amx_bfloat16));
  return peak;
}
#else
Peak measure_peak() { return {}; }
#endif

}  // namespace longreach
