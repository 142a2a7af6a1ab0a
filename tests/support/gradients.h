// Central differences against the tape.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace longreach::test {

// f maps float64 inputs to any tensor; it is reduced to a scalar by fixed random weights. For each input and
// three random directions, the slope found by central differences is compared with the gradient's: returns
// the largest relative difference.
double gradient_error(const std::function<at::Tensor(const std::vector<at::Tensor>&)>& f,
                      const std::vector<at::Tensor>& inputs);

}  // namespace longreach::test
