// One recurrence problem, run by the reference or the fused operator in any dtype, with all gradients.
#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <string>
#include <utility>
#include <vector>

#include "layers/ops/recurrence/recurrence.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {

enum class DecayKind { kNone, kHead, kToken };

struct RecurrenceCase {
  int64_t batch = 1, tokens = 64, heads = 2, key_heads = 2, value_heads = 2, dk = 16, dv = 16;
  DecayKind decay = DecayKind::kHead;
  std::vector<int32_t> bounds = {};  // of packed documents; empty: a row is a sequence
  bool initial = true;
  int64_t chunk = 64;
  uint64_t seed = 1;
  double decay_scale = 0.3;
  std::vector<double> steps = {};  // log decays drawn from this list instead

  int64_t sequences() const { return bounds.empty() ? batch : static_cast<int64_t>(bounds.size()) - 1; }
};

inline std::ostream& operator<<(std::ostream& out, const RecurrenceCase& c) {
  return out << "B" << c.batch << " T" << c.tokens << " H" << c.heads << "/" << c.key_heads << "/"
             << c.value_heads << " D" << c.dk << "x" << c.dv << " decay" << static_cast<int>(c.decay)
             << " docs" << c.bounds.size() << " chunk" << c.chunk << " seed" << c.seed;
}

// q, k, v, log_decay, initial_state, and the gradients of o and final_state.
using RecurrenceInputs = std::vector<at::Tensor>;
using Named = std::vector<std::pair<std::string, at::Tensor>>;

inline at::Tensor draw_decay(const RecurrenceCase& c, at::IntArrayRef shape) {
  const at::Tensor noise = normal(shape, c.seed + 5);
  if (c.steps.empty()) return (noise.abs() * -c.decay_scale).to(at::kFloat);
  const at::Tensor list = at::tensor(c.steps, at::kFloat);
  return list.index_select(0, (noise.abs() * 7919).to(at::kLong).remainder(list.numel()).flatten())
      .view(shape);
}

// q, k, v and the gradient of o hold values of `dtype`, so that rounding the inputs is no part of the error.
inline RecurrenceInputs draw(const RecurrenceCase& c, at::ScalarType dtype) {
  const auto make = [&](int64_t h, int64_t d, uint64_t seed) {
    return normal({c.batch, c.tokens, h, d}, 100 * c.seed + seed, dtype);
  };
  at::Tensor decay, start;
  if (c.decay == DecayKind::kHead) decay = draw_decay(c, {c.heads});
  if (c.decay == DecayKind::kToken) decay = draw_decay(c, {c.batch, c.tokens, c.heads});
  const std::vector<int64_t> states{c.sequences(), c.heads, c.dk, c.dv};
  if (c.initial) start = normal(states, 100 * c.seed + 4, at::kFloat);
  return {make(c.heads, c.dk, 1),
          make(c.key_heads, c.dk, 2),
          make(c.value_heads, c.dv, 3),
          decay,
          start,
          make(c.heads, c.dv, 6),
          normal(states, 100 * c.seed + 7, at::kFloat)};
}

inline at::Tensor bounds_tensor(const RecurrenceCase& c) {
  return c.bounds.empty() ? at::Tensor() : at::tensor(at::ArrayRef<int32_t>(c.bounds), at::kInt);
}

// Outputs and gradients; everything in float64 when `exact`.
using RecurrenceOperator = RecurrenceOutput (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                const RecurrenceOptions&);

inline Named run(const RecurrenceCase& c, const RecurrenceInputs& inputs, RecurrenceOperator operation,
                 bool exact = false) {
  std::vector<at::Tensor> x, wanted;
  for (const at::Tensor& input : inputs)
    x.push_back(input.defined() && exact ? input.to(at::kDouble) : input);
  const char* names[] = {"q", "k", "v", "log_decay", "initial_state"};
  std::vector<std::string> wanted_names;
  for (size_t i = 0; i < 5; ++i) {
    if (!x[i].defined()) continue;
    x[i] = x[i].detach().requires_grad_(true);
    wanted.push_back(x[i]);
    wanted_names.push_back(std::string("grad of ") + names[i]);
  }
  const RecurrenceOptions options{.scale = 0.5, .chunk = c.chunk};
  const auto [o, end] = operation(x[0], x[1], x[2], x[3], x[4], bounds_tensor(c), options);
  Named results{{"o", o.detach()}, {"final_state", end.detach()}};
  // Without tokens and without an initial state, the reference's results are constants.
  std::vector<at::Tensor> outputs, output_grads;
  for (const auto& [output, grad] : {std::pair{o, x[5]}, std::pair{end, x[6]}}) {
    if (!output.requires_grad()) continue;
    outputs.push_back(output);
    output_grads.push_back(grad);
  }
  std::vector<at::Tensor> grads(wanted.size());
  if (!outputs.empty())
    grads = torch::autograd::grad(outputs, wanted, output_grads, std::nullopt, false, true);
  for (size_t i = 0; i < grads.size(); ++i) {
    const at::Tensor grad = grads[i].defined() ? grads[i] : wanted[i].detach() * 0;
    results.emplace_back(wanted_names[i], grad);
  }
  return results;
}

// Every output and gradient of the fused operator against the float64 reference: RMS error over RMS of the
// reference at most `limit`, or twice the error of the reference itself in the same dtype.
inline void expect_matches_reference(const RecurrenceCase& c, at::ScalarType dtype = at::kFloat,
                                     RecurrenceOperator operation = recurrence) {
  SCOPED_TRACE(::testing::Message() << c);
  const RecurrenceInputs inputs = draw(c, dtype);
  const Named exact = run(c, inputs, recurrence_reference, true),
              plain = run(c, inputs, recurrence_reference), fused = run(c, inputs, operation);
  const double limit = dtype == at::kFloat ? 5e-6 : 1e-2;
  ASSERT_EQ(exact.size(), fused.size());
  for (size_t i = 0; i < exact.size(); ++i) {
    ASSERT_EQ(exact[i].second.sizes(), fused[i].second.sizes()) << exact[i].first;
    ASSERT_EQ(plain[i].second.scalar_type(), fused[i].second.scalar_type()) << exact[i].first;
    if (exact[i].second.numel() == 0) continue;
    const double own = relative_error(plain[i].second, exact[i].second);
    EXPECT_LE(relative_error(fused[i].second, exact[i].second), std::max(limit, 2 * own)) << exact[i].first;
  }
}

}  // namespace longreach::test
