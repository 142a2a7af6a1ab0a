// Parameter structs of the small CUDA kernels: what plan.cpp fills in and the kernels read. No CUDA header.
#pragma once
#include <cstdint>

namespace longreach::cuda {

inline constexpr int kRowThreads = 256;  // threads a block of every kernel here

// [rows, columns] elements with dense columns; `row` elements between rows. quads: every row begins on a
// multiple of 4 elements.
struct Rows {
  void* data = nullptr;
  int64_t row = 0;
  int32_t quads = 0;
};

struct RmsNormParams {
  Rows x, y;
  const float* weight;  // [columns] or null: 1
  float* rstd;          // [rows]
  int64_t rows;
  int32_t columns;
  float eps;
};

struct RmsNormGradParams {
  Rows x, dy, dx;
  const float *weight, *rstd;
  float* partials;  // [blocks, columns]: sums of dy xhat over the rows of a block; or null: not wanted
  int64_t rows;
  int32_t columns, pitch;  // pitch: of one quarter of the sums in shared memory
};

struct ColumnSumParams {
  const float* partials;  // [parts, columns]
  float* sums;            // [columns]
  int32_t parts, columns;
};

// x, y: [tokens, heads, 2 half].
struct RotaryParams {
  const void* x;
  void* y;
  int64_t x_token, x_head, y_token, y_head, tokens;
  const float *cos, *sin;  // [tokens, half]
  int32_t heads, half, quads;
  float direction;  // 1, or -1 to turn back
};

struct SiluProductParams {
  Rows gate, up, y;     // forward
  Rows dy, dgate, dup;  // backward
  int64_t rows;
  int32_t columns;
};

struct CrossEntropyParams {
  Rows logits;            // replaced by the gradient where `gradient` is set
  const int64_t* labels;  // [rows]
  float *nll, *lse;       // [rows], 0 where the label is ignored
  int64_t rows, ignored;
  int32_t columns, gradient;
  float z_loss, grad_scale;
};

struct LossSumParams {
  const float *nll, *lse;
  double* loss;  // += sum of nll + z_loss lse^2
  int64_t rows;
  float z_loss;
};

}  // namespace longreach::cuda
