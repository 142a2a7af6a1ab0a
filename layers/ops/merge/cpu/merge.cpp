// Join of partial softmax attentions on CPUs: o = sum_p w_p o_p, w_p = exp(lse_p - lse), lse = log sum_p
// exp(lse_p), and backward
//
//   do_p = w_p do,    dlse_p = w_p (do . (o_p - o) + dlse)
//
// One row of a head at a time, parts from left to right, sums in fp32. A part with lse = -inf has weight 0
// and is never read, so that whatever stands in its o cannot reach the result. Memory traffic alone sets the
// speed: forward reads the parts once and writes o once; rows are independent tasks.
#include <algorithm>
#include <cmath>
#include <limits>

#include "layers/ops/cpu/parallel.h"
#include "layers/ops/merge/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/merge/cpu/merge.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "layers/ops/cpu/pack-inl.h"
#include "layers/ops/cpu/scratch.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::merge_kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace kernel = simd::HWY_NAMESPACE;

struct Row {
  int64_t batch, head, token;
};

template <class T>
T* output(const Part& part, Row row) {
  return static_cast<T*>(part.o) + row.batch * part.o_batch + row.token * part.o_token +
         row.head * part.o_head;
}
inline float& lse(const Part& part, Row row) {
  return part.lse[row.batch * part.lse_batch + row.head * part.lse_head + row.token * part.lse_token];
}

inline Row row_at(const Merge& p, int64_t i) {
  return {i / p.tokens / p.heads, i / p.tokens % p.heads, i % p.tokens};
}

constexpr float kEmpty = -std::numeric_limits<float>::infinity();

template <class T>
void forward_row(const Merge& p, Row row, float* sum, float* part_row) {
  float highest = kEmpty, total = 0;
  bool empty = true;
  for (int64_t i = 0; i < p.part_count; ++i) {
    const float part = lse(p.parts[i], row);
    highest = std::max(highest, part);  // not of NaN, which reaches the total by its weight
    empty &= part == kEmpty;
  }
  std::fill(sum, sum + p.dim, 0.0f);
  for (int64_t i = 0; i < p.part_count; ++i) {
    if (lse(p.parts[i], row) == kEmpty) continue;
    const float w = std::exp(lse(p.parts[i], row) - highest);
    total += w;
    kernel::row_to_float(output<T>(p.parts[i], row), p.dim, part_row);
    for (int64_t j = 0; j < p.dim; ++j) sum[j] += w * part_row[j];
  }
  lse(p.result, row) = empty ? kEmpty : highest + std::log(total);
  const float scale = empty ? 0.0f : 1.0f / total;
  for (int64_t j = 0; j < p.dim; ++j) sum[j] *= scale;
  kernel::row_from_float(sum, p.dim, output<T>(p.result, row));
}

template <class T>
void backward_row(const MergeBackward& p, Row row, float* grad, float* joined, float* part_row) {
  const Merge& f = p.forward;
  const int64_t dim = f.dim;
  const float total = lse(f.result, row), grad_lse = p.grad.lse == nullptr ? 0.0f : lse(p.grad, row);
  kernel::row_to_float(output<T>(p.grad, row), dim, grad);
  // The joined row again in fp32: the stored one may be rounded to bf16, and o_p - o cancels.
  std::fill(joined, joined + dim, 0.0f);
  for (int64_t i = 0; i < f.part_count; ++i) {
    if (lse(f.parts[i], row) == kEmpty) continue;
    const float w = std::exp(lse(f.parts[i], row) - total);
    kernel::row_to_float(output<T>(f.parts[i], row), dim, part_row);
    for (int64_t j = 0; j < dim; ++j) joined[j] += w * part_row[j];
  }
  for (int64_t i = 0; i < f.part_count; ++i) {
    const bool empty = lse(f.parts[i], row) == kEmpty;
    const float w = empty ? 0.0f : std::exp(lse(f.parts[i], row) - total);
    float dot = 0;
    if (!empty) {
      kernel::row_to_float(output<T>(f.parts[i], row), dim, part_row);
      for (int64_t j = 0; j < dim; ++j) dot += grad[j] * (part_row[j] - joined[j]);
    }
    for (int64_t j = 0; j < dim; ++j) part_row[j] = empty ? 0.0f : w * grad[j];
    kernel::row_from_float(part_row, dim, output<T>(p.grads[i], row));
    lse(p.grads[i], row) = empty ? 0.0f : w * (dot + grad_lse);
  }
}

float* buffer(int64_t count) {
  static thread_local simd::Scratch<float> scratch;
  return scratch.get(count);
}

void forward_rows(const Merge& p, int64_t first, int64_t last) {
  float* rows = buffer(2 * p.dim);
  for (int64_t i = first; i < last; ++i) {
    if (p.dtype == DType::kFloat32)
      forward_row<float>(p, row_at(p, i), rows, rows + p.dim);
    else
      forward_row<uint16_t>(p, row_at(p, i), rows, rows + p.dim);
  }
}

void backward_rows(const MergeBackward& p, int64_t first, int64_t last) {
  const Merge& f = p.forward;
  float* rows = buffer(3 * f.dim);
  for (int64_t i = first; i < last; ++i) {
    if (f.dtype == DType::kFloat32)
      backward_row<float>(p, row_at(f, i), rows, rows + f.dim, rows + 2 * f.dim);
    else
      backward_row<uint16_t>(p, row_at(f, i), rows, rows + f.dim, rows + 2 * f.dim);
  }
}

}  // namespace longreach::merge_kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longreach::merge_kernels {
namespace {
constexpr int64_t kRowsAPiece = 64;
int64_t rows(const Merge& params) { return params.batch * params.heads * params.tokens; }
}  // namespace

HWY_EXPORT(forward_rows);
HWY_EXPORT(backward_rows);

void forward(const Merge& params) {
  const auto run = HWY_DYNAMIC_DISPATCH(forward_rows);
  parallel_for(0, rows(params), kRowsAPiece, [&](int64_t first, int64_t last) { run(params, first, last); });
}

void backward(const MergeBackward& params) {
  const auto run = HWY_DYNAMIC_DISPATCH(backward_rows);
  parallel_for(0, rows(params.forward), kRowsAPiece,
               [&](int64_t first, int64_t last) { run(params, first, last); });
}

}  // namespace longreach::merge_kernels
#endif
