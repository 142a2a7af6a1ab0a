// Where a tensor of heads lies in memory: plain data for operators and torch-free kernels.
#pragma once
#include <cstdint>

namespace longreach {

// [batch, token, head, element]: strides in elements; the last dimension is dense.
struct Strided {
  void* data;
  int64_t batch, token, head;
};

}  // namespace longreach
