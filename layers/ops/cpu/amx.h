// bf16 matrix product of small tiles on Intel's tile registers (AMX: TDPBF16PS), fp32 sums. Same operands and
// result as gemm_bf16_dot (bf16_dot.h); compiled for these instructions in a file of its own and entered
// behind a check.
#pragma once
#include <cstdint>

namespace longreach::simd {

// Does this CPU have it, and has the system let this process use it? Asks once.
bool has_amx();

// The calling thread's tile registers, set up for the products below and given back at the end: a task of
// many products holds one. No other library's tile code (LibTorch's oneDNN) may run in between. Does nothing
// where !has_amx().
class TileRegisters {
 public:
  TileRegisters();
  ~TileRegisters();
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;
};

// C[m, n] (+)= A[m, k] B[k, n]: A bf16 rows, `row` elements apart; B [k/2][n][2], ldb counts pairs; C fp32
// rows. k and row even, n a multiple of 16. What does not fill tiles (rows beyond a multiple of 16, products
// beyond one of 32) goes through gemm_bf16_dot, which every such CPU has. Only where has_amx(), while
// TileRegisters lives.
void gemm_bf16_amx(int64_t m, int64_t n, int64_t k, const uint16_t* a, int64_t row, const uint16_t* b,
                   int64_t ldb, float* c, int64_t ldc, bool accumulate);

}  // namespace longreach::simd
