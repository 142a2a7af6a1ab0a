// Parameters of the test kernels of fp32 products (split_sums.cu).
#pragma once

namespace longreach::ptx {

struct SplitParameters {
  const float* a;  // [16, depth]
  const float* b;  // [depth, 8]
  float* d;        // [16, 8]
  int depth;
};

}  // namespace longreach::ptx
