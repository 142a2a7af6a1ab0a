// Parameters of the CPU's own product for few rows: pointers and sizes alone, no torch.
#pragma once
#include <cstdint>
#include <span>

#include "layers/ops/dtype.h"

namespace longreach::few_rows {

// Up to so many rows the weight is read once, at the pace of memory; beyond, the libraries' products win.
inline constexpr int64_t kMostRows = 4;

// y = x weight^T, sums in float32. Dense x [rows, in], weight [out, in], y [rows, out]; rows <= kMostRows.
struct Product {
  int64_t rows = 0, in = 0, out = 0;
  const void* x = nullptr;
  const void* weight = nullptr;
  DType dtype = DType::kFloat32;  // of x and weight
  void* y = nullptr;
  DType y_dtype = DType::kFloat32;
};

// Their columns are shared out among the threads together.
void forward(std::span<const Product> products);

}  // namespace longreach::few_rows
