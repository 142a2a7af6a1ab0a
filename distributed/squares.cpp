#include "distributed/squares.h"

#include <ATen/ops/empty.h>

namespace longreach {
namespace {

// The square of a float32 number is exact in float64. Eight sums side by side are one vector's worth.
double sum_of_squares(const float* x, int64_t count) {
  constexpr int64_t kLanes = 8;
  double sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane)
      sums[lane] += static_cast<double>(x[i + lane]) * static_cast<double>(x[i + lane]);
  for (int64_t lane = 0; i < count; ++i, ++lane)
    sums[lane] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace

at::Tensor sums_of_squares(const at::Tensor& x, int64_t block) {
  const int64_t blocks = (x.numel() + block - 1) / block;
  if (!x.is_cpu()) {
    at::Tensor padded = x.new_zeros({blocks * block});
    padded.narrow(0, 0, x.numel()).copy_(x.view({-1}));
    return padded.view({blocks, block}).to(at::kDouble).square().sum(1).cpu();
  }
  at::Tensor sums = at::empty({blocks}, at::kDouble);
  const float* values = x.const_data_ptr<float>();
  double* out = sums.mutable_data_ptr<double>();
  for (int64_t b = 0; b < blocks; ++b)
    out[b] = sum_of_squares(values + b * block, std::min(block, x.numel() - b * block));
  return sums;
}

double added(const at::Tensor& sums) {
  double total = 0;
  const double* values = sums.const_data_ptr<double>();
  for (int64_t i = 0; i < sums.numel(); ++i) total += values[i];
  return total;
}

}  // namespace longreach
