// Inputs and the comparison with the float64 reference that the tests of interval attention share.
#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <string>

#include "core/error.h"
#include "layers/ops/interval_attention/interval_attention.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {

struct AttentionCase {
  int64_t batch = 2, queries = 65, keys = 65, heads = 4, key_heads = 4, value_heads = 4, qk_size = 16,
          v_size = 16;
  IntervalMask mask;
  double magnitude = 1.0;  // of q: multiplies the logits
  std::optional<double> scale;
  uint64_t seed = 1;
  bool gradient_of_o = true, gradient_of_lse = true;

  std::string name() const {
    return text("B", batch, " Tq", queries, " Tk", keys, " H", heads, '/', key_heads, '/', value_heads, " D",
                qk_size, '/', v_size, " causal", mask.causal, " window", mask.window, " sinks", mask.sinks,
                mask.lo.defined() ? " lo/hi" : "", mask.cu_seqlens_q.defined() ? " packed" : "", " seed",
                seed);
  }
};

// o, lse (0 in place of -inf), dq, dk, dv of one implementation, in this order.
using AttentionResult = std::vector<at::Tensor>;
using Attention = IntervalAttentionOutput (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                              const IntervalMask&, std::optional<double>);

// Inputs are rounded to `rounding` first, so that runs in different dtypes see the same numbers.
inline AttentionResult run_attention(const AttentionCase& c, Attention attention, at::ScalarType dtype,
                                     at::ScalarType rounding) {
  const auto input = [&](at::IntArrayRef shape, uint64_t salt, double magnitude) {
    return (normal(shape, c.seed * 16 + salt) * magnitude).to(rounding).to(dtype);
  };
  const at::Tensor q = input({c.batch, c.queries, c.heads, c.qk_size}, 0, c.magnitude).requires_grad_();
  const at::Tensor k = input({c.batch, c.keys, c.key_heads, c.qk_size}, 1, 1.0).requires_grad_();
  const at::Tensor v = input({c.batch, c.keys, c.value_heads, c.v_size}, 2, 1.0).requires_grad_();
  const IntervalAttentionOutput output = attention(q, k, v, c.mask, c.scale);
  const at::Tensor d_o = input({c.batch, c.queries, c.heads, c.v_size}, 3, 1.0);
  const at::Tensor d_lse = input({c.batch, c.heads, c.queries}, 4, 1.0).to(output.lse.scalar_type());
  std::vector<at::Tensor> outputs, gradients;
  if (c.gradient_of_o) outputs.push_back(output.o), gradients.push_back(d_o);
  if (c.gradient_of_lse) {
    // d(lse) of a row that sees nothing leads nowhere.
    outputs.push_back(output.lse);
    gradients.push_back(d_lse.masked_fill(output.lse.detach().isinf(), 0.0));
  }
  auto grads = torch::autograd::grad(outputs, {q, k, v}, gradients, std::nullopt, false, true);
  AttentionResult result{output.o.detach(),
                         output.lse.detach().masked_fill(output.lse.detach().isinf(), 0.0)};
  const std::vector<at::Tensor> inputs{q, k, v};
  for (size_t i = 0; i < grads.size(); ++i)
    result.push_back(grads[i].defined() ? grads[i] : at::Tensor(inputs[i].detach() * 0.0));
  return result;
}

// Fused in `dtype` against the reference in float64: RMS errors at most max(floor, 2 x those of the reference
// in `dtype`).
inline void expect_matches_reference(const AttentionCase& c, at::ScalarType dtype,
                                     Attention operation = interval_attention) {
  SCOPED_TRACE(c.name());
  const AttentionResult exact = run_attention(c, interval_attention_reference, at::kDouble, dtype);
  const AttentionResult plain = run_attention(c, interval_attention_reference, dtype, dtype);
  const AttentionResult fused = run_attention(c, operation, dtype, dtype);
  const double floor = dtype == at::kFloat ? 5e-6 : 1e-2;
  const char* names[] = {"o", "lse", "dq", "dk", "dv"};
  for (size_t i = 0; i < exact.size(); ++i) {
    ASSERT_EQ(fused[i].sizes(), exact[i].sizes()) << names[i];
    if (exact[i].numel() == 0) continue;
    if (exact[i].abs().max().item<double>() == 0.0) {
      EXPECT_EQ(fused[i].abs().max().item<double>(), 0.0) << names[i];
      continue;
    }
    const double limit = std::max(floor, 2.0 * relative_error(plain[i], exact[i]));
    EXPECT_LE(relative_error(fused[i], exact[i]), limit) << names[i];
  }
}

inline at::Tensor int_tensor(const std::vector<int32_t>& values, at::IntArrayRef shape) {
  at::Tensor tensor = normal(shape, 0).to(at::kInt);
  std::copy(values.begin(), values.end(), tensor.data_ptr<int32_t>());
  return tensor;
}

// Per query an interval of random ends, about one in six empty.
inline void random_intervals(AttentionCase& c, int64_t batches, int64_t heads, uint64_t seed) {
  const auto ends = [&](uint64_t salt) {
    return (normal({batches, heads, c.queries}, seed + salt) * 0.5 * static_cast<double>(c.keys + 1) +
            0.5 * static_cast<double>(c.keys))
        .to(at::kInt);
  };
  c.mask.lo = ends(0) - static_cast<int64_t>(c.keys / 2);
  c.mask.hi = ends(1) + static_cast<int64_t>(c.keys / 3);
}

}  // namespace longreach::test
