// Launch plans of the small kernels that training needs beside attention: RMSNorm, rotary embedding, SwiGLU,
// cross-entropy. Device pointers and sizes in, kernel launches out; no torch and no CUDA header.
// layers/ops/rows/rows.h defines the functions. Built for float32, bfloat16 and float16; what is not is a
// ShapeError or DtypeError that names what is. Rows of any stride, dense columns; rows that begin on
// multiples of 4 elements go 4 at a time.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "layers/ops/cuda/launch.h"
#include "layers/ops/dtype.h"

namespace longreach::cuda {

struct Matrix {  // [rows, columns], `row` elements between rows
  void* data = nullptr;
  int64_t row = 0;
};

// y = x rsqrt(mean(x^2) + eps) weight. x and y of one type, or x float32 and y of any. Columns 1 to 16384.
struct RmsNorm {
  int64_t rows = 0, columns = 0;
  DType x_dtype = DType::kFloat32, y_dtype = DType::kFloat32;
  Matrix x, y;
  const float* weight = nullptr;  // [columns] or null: 1
  float* rstd = nullptr;          // [rows], kept for the gradient
  float eps = 0;
};
std::vector<Launch> plan_rms_norm(const RmsNorm& params);

struct RmsNormGrad {
  int64_t rows = 0, columns = 0;
  DType x_dtype = DType::kFloat32, y_dtype = DType::kFloat32;
  Matrix x, dy, dx;  // dx: x_dtype, dy: y_dtype
  const float *weight = nullptr, *rstd = nullptr;
  float* dweight = nullptr;    // [columns], written; null: not wanted
  float* workspace = nullptr;  // rms_norm_workspace_bytes, when dweight is wanted
};
size_t rms_norm_workspace_bytes(int64_t rows, int64_t columns);
std::vector<Launch> plan_rms_norm_grad(const RmsNormGrad& params);

// x [tokens, heads, 2 half] turned by cos and sin [tokens, half] (direction 1), or back (-1), which is the
// gradient.
struct Rotary {
  int64_t tokens = 0, heads = 0, half = 0;
  DType dtype = DType::kFloat32;
  bool neighbours = false;  // pairs (2i, 2i + 1), RoFormer's layout, instead of (i, i + half), Hugging Face's
  const void* x = nullptr;
  void* y = nullptr;  // may be x
  int64_t x_token = 0, x_head = 0, y_token = 0, y_head = 0;
  const float *cos = nullptr, *sin = nullptr;
  float direction = 1;
};
std::vector<Launch> plan_rotary(const Rotary& params);

// y = silu(gate) up; the gradient where dy is given instead of y.
struct SiluProduct {
  int64_t rows = 0, columns = 0;
  DType dtype = DType::kFloat32;
  Matrix gate, up, y, dy, dgate, dup;
};
std::vector<Launch> plan_silu_product(const SiluProduct& params);

// One chunk of rows of logits. Labels: `ignored`, or 0 to columns - 1; the caller has checked them (another
// label makes its nll NaN and reads nothing outside).
struct CrossEntropy {
  int64_t rows = 0, columns = 0;
  DType dtype = DType::kFloat32;
  Matrix logits;  // becomes the gradient of grad_scale (nll + z_loss lse^2) where `gradient`
  const int64_t* labels = nullptr;  // [rows]
  int64_t ignored = -100;
  float *nll = nullptr, *lse = nullptr;  // [rows]; 0 for ignored rows
  double* loss = nullptr;                // += sum of nll + z_loss lse^2; null: not wanted
  bool gradient = false;
  float z_loss = 0, grad_scale = 1;
};
std::vector<Launch> plan_cross_entropy(const CrossEntropy& params);

}  // namespace longreach::cuda
