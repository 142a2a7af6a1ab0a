// Asking for rows ahead of their use. Rows of one head lie a token apart, mostly on pages of their own, which
// the hardware's prefetchers do not follow.
#pragma once
#include <cstdint>

namespace longreach::simd {

inline constexpr int64_t kRowsAhead = 8;

inline void prefetch_row(const void* row, int64_t bytes) {
  constexpr int64_t kLine = 64;
  for (int64_t at = 0; at < bytes; at += kLine) __builtin_prefetch(static_cast<const char*>(row) + at);
}

}  // namespace longreach::simd
