// Calls without a single token: a row of length 0, packed rows of no documents (cu_seqlens = [0]) and of one
// that is empty ([0, 0]). Every operator and every functional form gives empty tensors, forward and backward.
// The modules are among the checks of every mechanism (tests/support/attention/mechanism_checks.cpp).
#pragma once
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <functional>
#include <vector>

namespace longreach::test {

using Results = std::vector<at::Tensor>;

inline constexpr int64_t kHeads = 4, kKeyHeads = 2, kSize = 16;

// q, k, v without tokens, and the bounds of their documents: undefined, [0] or [0, 0].
struct Nothing {
  at::Tensor q, k, v, cu_seqlens;
  int64_t sequences() const { return cu_seqlens.defined() ? cu_seqlens.numel() - 1 : 1; }
  at::TensorOptions options() const { return q.options().requires_grad(false); }
};

// What comes out is empty or zero, and so is the gradient of q, where q has one.
inline void expect_nothing(at::ScalarType dtype, const std::function<Results(const Nothing&)>& call) {
  for (const at::Tensor& bounds : {at::Tensor(), at::tensor({0}, at::kInt), at::tensor({0, 0}, at::kInt)}) {
    SCOPED_TRACE(bounds.defined() ? bounds.numel() : 0);
    const auto leaf = [&](int64_t heads) {
      return at::zeros({1, 0, heads, kSize}, at::TensorOptions(dtype)).requires_grad_(true);
    };
    const Nothing in{leaf(kHeads), leaf(kKeyHeads), leaf(kKeyHeads), bounds};
    at::Tensor sum = at::zeros({}, in.options());
    bool first = true;
    for (const at::Tensor& result : call(in)) {
      ASSERT_TRUE(result.defined());
      EXPECT_TRUE(result.numel() == 0 || result.eq(0).all().item<bool>()) << result.sizes();
      EXPECT_EQ(result.requires_grad(), first) << "the first of the results, and it alone, is on the tape";
      if (first) sum = sum + result.sum();
      first = false;
    }
    sum.backward();
    EXPECT_TRUE(in.q.grad().defined() && in.q.grad().sizes() == in.q.sizes());
  }
}

}  // namespace longreach::test
