// The parts of bf16_dot.h for any CPU: is the instruction there, and the operand layouts.
#include <cstring>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "layers/ops/cpu/amx.h"
#include "layers/ops/cpu/bf16_dot.h"

// foreach_target compiles the layouts once per target.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/cpu/bf16.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "layers/ops/cpu/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::simd::HWY_NAMESPACE {

void pair_rows_impl(const uint16_t* from, int64_t from_row, int64_t rows, int64_t columns, uint16_t* to,
                    int64_t to_row, int64_t padded_rows, int64_t padded_columns) {
  const hn::FixedTag<uint16_t, 8> d;
  for (int64_t r = 0; r < padded_rows; r += 2) {
    const uint16_t *first = from + r * from_row, *second = first + from_row;
    uint16_t* out = to + r * to_row;
    int64_t c = 0;
    if (r + 1 < rows) {
      for (; c + 8 <= columns; c += 8) {
        const auto a = hn::LoadU(d, first + c), b = hn::LoadU(d, second + c);
        hn::StoreU(hn::InterleaveLower(d, a, b), d, out + 2 * c);
        hn::StoreU(hn::InterleaveUpper(d, a, b), d, out + 2 * c + 8);
      }
    }
    for (; c < padded_columns; ++c) {
      out[2 * c] = r < rows && c < columns ? first[c] : uint16_t{0};
      out[2 * c + 1] = r + 1 < rows && c < columns ? second[c] : uint16_t{0};
    }
  }
}

void pair_columns_impl(const uint16_t* from, int64_t from_row, int64_t rows, int64_t columns, uint16_t* to,
                       int64_t to_row, int64_t padded_rows) {
  const int64_t pairs = columns / 2;
  if (from_row % 2 == 0 && reinterpret_cast<uintptr_t>(from) % 4 == 0) {
    transpose(reinterpret_cast<const float*>(from), from_row / 2, rows, pairs, reinterpret_cast<float*>(to),
              to_row);
  } else {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t p = 0; p < pairs; ++p)
        std::memcpy(to + 2 * (p * to_row + r), from + r * from_row + 2 * p, 4);
  }
  if (columns % 2 != 0) {
    for (int64_t r = 0; r < rows; ++r) {
      to[2 * (pairs * to_row + r)] = from[r * from_row + columns - 1];
      to[2 * (pairs * to_row + r) + 1] = 0;
    }
  }
  for (int64_t p = 0; p < (columns + 1) / 2; ++p)
    std::memset(to + 2 * (p * to_row + rows), 0, static_cast<size_t>(padded_rows - rows) * 4);
}

}  // namespace longreach::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longreach::simd {
HWY_EXPORT(pair_rows_impl);
HWY_EXPORT(pair_columns_impl);

bool has_bf16_dot() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
  return false;
#endif
}

bool has_amx() {
#if defined(__x86_64__) && defined(__linux__)
  static const bool lent = [] {
    // g++ 12 has no __builtin_cpu_supports("amx-bf16"): CPUID leaf 7, EDX bits 22 (AMX-BF16) and 24
    // (AMX-TILE).
    uint32_t eax = 7, ebx = 0, ecx = 0, edx = 0;
    __asm__("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    // Linux lends the registers to a process that asks (asm/prctl.h: ARCH_REQ_XCOMP_PERM, XTILEDATA).
    return (edx >> 22 & 1) && (edx >> 24 & 1) && has_bf16_dot() && syscall(SYS_arch_prctl, 0x1023, 18) == 0;
  }();
  return lent;
#else
  return false;
#endif
}

bool bf16_dot_is_fast() {
#if defined(__x86_64__)
  return has_bf16_dot() && __builtin_cpu_is("amd");
#else
  return false;
#endif
}

void pair_rows(const uint16_t* from, int64_t from_row, int64_t rows, int64_t columns, uint16_t* to,
               int64_t to_row, int64_t padded_rows, int64_t padded_columns) {
  HWY_DYNAMIC_DISPATCH(pair_rows_impl)
  (from, from_row, rows, columns, to, to_row, padded_rows, padded_columns);
}

void pair_columns(const uint16_t* from, int64_t from_row, int64_t rows, int64_t columns, uint16_t* to,
                  int64_t to_row, int64_t padded_rows) {
  HWY_DYNAMIC_DISPATCH(pair_columns_impl)(from, from_row, rows, columns, to, to_row, padded_rows);
}

}  // namespace longreach::simd
#endif
