// What operators of which the recurrence is a part call: states alone, gradients of states alone, and the
// operator without a tape.
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <limits>

#include "core/error.h"
#include "layers/ops/common/autograd.h"
#include "tests/layers/ops/recurrence/cases.h"

namespace longreach::test {
namespace {

// Fresh memory holds NaN: an element that a kernel forgets to write is seen.
class RecurrenceStates : public ::testing::Test {
 protected:
  void SetUp() override { at::globalContext().setDeterministicAlgorithms(true, false); }
  void TearDown() override { at::globalContext().setDeterministicAlgorithms(false, false); }
};

// Rows and packed documents, empty ones among them; few heads (segments side by side) and many, shared ones;
// sequences of one token, of a part of a chunk, and of several segments.
const std::vector<RecurrenceCase>& cases() {
  static const std::vector<RecurrenceCase> all{
      {.batch = 2, .tokens = 0},
      {.batch = 2, .tokens = 1, .decay = DecayKind::kToken},
      {.batch = 2, .tokens = 70, .dk = 24, .dv = 40, .decay = DecayKind::kNone},
      {.tokens = 300, .heads = 1, .key_heads = 1, .value_heads = 1, .chunk = 16},
      {.tokens = 300, .heads = 4, .key_heads = 2, .value_heads = 1, .decay = DecayKind::kToken, .chunk = 16},
      {.tokens = 150, .heads = 10, .key_heads = 5, .value_heads = 2, .dk = 17, .dv = 33, .chunk = 16},
      {.tokens = 231,
       .decay = DecayKind::kToken,
       .bounds = {0, 0, 1, 18, 83, 83, 131, 231, 231},
       .chunk = 32},
      {.tokens = 0, .bounds = {0}},
      {.tokens = 0, .bounds = {0, 0}},
      {.tokens = 150, .steps = {-std::numeric_limits<double>::infinity(), 0.0}}};
  return all;
}

void expect_near(const at::Tensor& found, const at::Tensor& expected, double tolerance) {
  ASSERT_EQ(found.sizes(), expected.sizes());
  ASSERT_EQ(found.scalar_type(), expected.scalar_type());
  if (expected.numel() == 0 || expected.eq(0).all().item<bool>())
    EXPECT_TRUE(at::equal(found, expected));
  else
    EXPECT_LE(relative_error(found, expected), tolerance);
}

const std::vector<std::tuple<at::ScalarType, Implementation, double>>& forms() {
  static const std::vector<std::tuple<at::ScalarType, Implementation, double>> all{
      {at::kFloat, Implementation::fused, 1e-6},
      {at::kBFloat16, Implementation::fused, 1e-6},
      {at::kDouble, Implementation::reference, 1e-13}};
  return all;
}

RecurrenceInputs drawn(const RecurrenceCase& c, at::ScalarType dtype) {
  RecurrenceInputs x = draw(c, dtype);
  if (dtype == at::kDouble)
    for (at::Tensor& tensor : x)
      if (tensor.defined()) tensor = tensor.to(at::kDouble);
  return x;
}

TEST_F(RecurrenceStates, FinalStatesAreThoseOfAWholePass) {
  for (const auto& [dtype, form, tolerance] : forms())
    for (const RecurrenceCase& c : cases()) {
      SCOPED_TRACE(::testing::Message() << c << " " << at::toString(dtype));
      const RecurrenceInputs x = drawn(c, dtype);
      const RecurrenceOptions options{.scale = 0.5, .chunk = c.chunk};
      const at::Tensor bounds = bounds_tensor(c);
      expect_near(recurrence_final_state(form, x[1], x[2], c.heads, x[3], bounds, options),
                  recurrence_by(form, x[0], x[1], x[2], x[3], {}, bounds, options).final_state, tolerance);
    }
}

TEST_F(RecurrenceStates, GradientsOfInitialStatesAreThoseOfAWholePass) {
  for (const auto& [dtype, form, tolerance] : forms())
    for (const RecurrenceCase& c : cases()) {
      SCOPED_TRACE(::testing::Message() << c << " " << at::toString(dtype));
      RecurrenceInputs x = drawn(c, dtype);
      const RecurrenceOptions options{.scale = 0.5, .chunk = c.chunk};
      const at::Tensor start = x[4].requires_grad_(true), bounds = bounds_tensor(c);
      const at::Tensor o = recurrence_by(form, x[0], x[1], x[2], x[3], start, bounds, options).o;
      at::Tensor expected = at::zeros_like(start);
      if (o.numel() > 0) expected = torch::autograd::grad({o}, {start}, {x[5]})[0];
      expect_near(recurrence_start_gradient(form, x[0], x[5], x[3], bounds, options), expected, tolerance);
    }
}

TEST_F(RecurrenceStates, TheOperatorIsThatOfTheTape) {
  for (const auto& [dtype, form, tolerance] : forms())
    for (const RecurrenceCase& c : cases()) {
      if (c.tokens == 0) continue;
      SCOPED_TRACE(::testing::Message() << c << " " << at::toString(dtype));
      const RecurrenceInputs x = drawn(c, dtype);
      const RecurrenceOptions options{.scale = 0.5, .chunk = c.chunk};
      Named expected = run(c, x, form == Implementation::fused ? recurrence : recurrence_reference);
      Tensors saved, found;
      const auto op = recurrence_op(form, bounds_tensor(c), options, true);
      {
        const at::NoGradGuard no_grad;
        found = op->forward({x[0], x[1], x[2], x[3], x[4]}, saved);
      }
      const bool decays = x[3].defined();
      for (const at::Tensor& gradient : op->backward(saved, {x[5], x[6]}, {true, true, true, decays, true}))
        if (gradient.defined()) found.push_back(gradient);
      ASSERT_EQ(found.size(), expected.size());
      for (size_t i = 0; i < found.size(); ++i)
        EXPECT_TRUE(at::equal(found[i], expected[i].second)) << expected[i].first;
    }
}

TEST_F(RecurrenceStates, RejectsWrongArguments) {
  const RecurrenceInputs x = draw({}, at::kFloat);
  const auto fused = Implementation::fused;
  EXPECT_THROW(recurrence_final_state(fused, x[1], x[2].narrow(1, 0, 5), 2), ShapeError);
  EXPECT_THROW(recurrence_final_state(fused, x[1][0], x[2], 2), ShapeError);
  EXPECT_THROW(recurrence_final_state(fused, x[1], x[2], 3), ShapeError);
  EXPECT_THROW(recurrence_final_state(fused, x[1].to(at::kDouble), x[2], 2), DtypeError);
  EXPECT_THROW(recurrence_start_gradient(fused, x[0], x[5].to(at::kBFloat16)), DtypeError);
  EXPECT_THROW(recurrence_start_gradient(fused, x[0], x[5].narrow(2, 0, 1).expand({1, 64, 3, 16})),
               ShapeError);
}

}  // namespace
}  // namespace longreach::test
