// A part of a parameter.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace longreach {

// What one rank keeps of a parameter, flattened, and updates: elements from `begin` on. Their gradient is
// values.grad(); undefined where no rank has one.
struct Run {
  std::string name;
  std::vector<int64_t> shape;  // of the whole parameter
  int64_t begin = 0;
  at::Tensor values;  // may be empty
};

}  // namespace longreach
