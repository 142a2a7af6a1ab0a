// What the tape promises about a fused operator whose backward pass is not differentiable itself.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

namespace longreach::test {

// A scalar of one operator, and the leaves that it depends on.
struct TapeCase {
  std::string name;  // the operator's, as its errors say it
  std::vector<at::Tensor> leaves;
  std::function<at::Tensor(const std::vector<at::Tensor>&)> value;
};

at::Tensor sum_of_squares(const at::Tensor& x);

// Gradients that are asked for with create_graph are the same bits.
void expect_same_gradients_with_a_graph(const TapeCase& c);

// A gradient penalty whose second derivative is not there must not pass for one that is 0: it throws, by the
// operator's name.
void expect_no_second_derivative(const TapeCase& c);

// A caller's own node may hand back nothing for what an operator gave; that is a gradient of 0, not a fault.
void expect_zero_for_an_undefined_gradient(const std::string& name, const at::Tensor& output);

}  // namespace longreach::test
