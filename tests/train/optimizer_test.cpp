// AdamW against its formula in double, clipping, state.
#include "train/optimizer.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "core/error.h"
#include "core/temporary_folder.h"
#include "tests/support/random_tensors.h"
#include "train/finite.h"
#include "train/gradient_norm.h"

namespace longreach {
namespace {

using test::normal;

// As a checkpoint holds it.
ShardedTensors stored(const NamedParameters& state) {
  const TemporaryFolder folder;
  write_safetensors(folder.path("state"), state);
  return {{folder.path("state")}, ShardedTensors::Parts::kWhole};
}

struct Expected {
  at::Tensor p, m, v;
  void step(const at::Tensor& gradient, const OptimizerConfig& c, double lr, double decay, int t) {
    const at::Tensor g = gradient.to(at::kDouble);
    p = p * (1 - lr * decay);
    m = c.beta1 * m + (1 - c.beta1) * g;
    v = c.beta2 * v + (1 - c.beta2) * g * g;
    const at::Tensor m_hat = m / (1 - std::pow(c.beta1, t)), v_hat = v / (1 - std::pow(c.beta2, t));
    p = p - lr * m_hat / (v_hat.sqrt() + c.eps);
  }
};

TEST(AdamW, FollowsTheFormulaAndDecaysMatricesOnly) {
  const OptimizerConfig config{.weight_decay = 0.3};
  at::Tensor matrix = normal({7, 9}, 1, at::kFloat, true), vector = normal({33}, 2, at::kFloat, true);
  AdamW optimizer(whole_runs({{"matrix", matrix}, {"vector", vector}}), {"vector"}, config);
  const auto start = [](const at::Tensor& t) {
    const at::Tensor p = t.detach().to(at::kDouble);
    return Expected{p, p * 0, p * 0};
  };
  Expected a = start(matrix), b = start(vector);
  for (int t = 1; t <= 5; ++t) {
    matrix.mutable_grad() = normal({7, 9}, 10 + t, at::kFloat);
    vector.mutable_grad() = normal({33}, 20 + t, at::kFloat);
    a.step(matrix.grad(), config, 0.01, 0.3, t);
    b.step(vector.grad(), config, 0.01, 0.0, t);
    EXPECT_TRUE(optimizer.step(0.01, 10));
  }
  EXPECT_LT(test::relative_error(matrix, a.p), 1e-6);
  EXPECT_LT(test::relative_error(vector, b.p), 1e-6);
}

TEST(AdamW, ContinuesFromItsState) {
  at::Tensor one = normal({4, 4}, 1, at::kFloat, true), two = one.detach().clone().requires_grad_(true);
  AdamW first(whole_runs({{"w", one}}), {}, {}), second(whole_runs({{"w", two}}), {}, {});
  const auto step = [](AdamW& optimizer, at::Tensor& parameter, uint64_t seed) {
    parameter.mutable_grad() = normal({4, 4}, seed, at::kFloat);
    EXPECT_TRUE(optimizer.step(0.1, 10));
  };
  step(first, one, 5);
  step(second, two, 5);
  AdamW restored(whole_runs({{"w", two}}), {}, {});
  restored.load(stored(second.whole_state()));
  step(first, one, 6);
  step(restored, two, 6);
  EXPECT_TRUE(one.equal(two));
}

std::vector<at::Tensor> bits_of(const std::vector<at::Tensor>& parameters, const AdamW& optimizer) {
  std::vector<at::Tensor> all;
  for (const at::Tensor& parameter : parameters) all.push_back(parameter.detach().clone());
  for (const auto& [name, tensor] : optimizer.whole_state()) all.push_back(tensor.clone());
  return all;
}

// A state that fits in part, so that what is copied before it is refused would show.
TEST(AdamW, RefusesStateOfAnotherModelAndChangesNothing) {
  at::Tensor a = normal({4, 4}, 1, at::kFloat, true), b = normal({3}, 2, at::kFloat, true);
  AdamW optimizer(whole_runs({{"a", a}, {"b", b}}), {"b"}, {});
  const auto step = [](AdamW& stepped, at::Tensor& first, at::Tensor& second, uint64_t seed) {
    first.mutable_grad() = normal(first.sizes(), seed, at::kFloat);
    second.mutable_grad() = normal(second.sizes(), seed + 1, at::kFloat);
    EXPECT_TRUE(stepped.step(0.1, 10));
  };
  step(optimizer, a, b, 3);
  const auto before = bits_of({a, b}, optimizer);
  const auto expect_refused = [&](const NamedParameters& state, const std::string& named) {
    try {
      optimizer.load(stored(state));
      ADD_FAILURE() << "was loaded: " << named;
    } catch (const CheckpointError& error) {
      EXPECT_NE(std::string(error.what()).find(named), std::string::npos) << error.what();
    }
    const auto after = bits_of({a, b}, optimizer);
    for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(before[i].equal(after[i])) << named << ", " << i;
  };
  at::Tensor other = normal({4, 4}, 5, at::kFloat, true), longer = normal({5}, 6, at::kFloat, true);
  AdamW wrong(whole_runs({{"a", other}, {"b", longer}}), {"b"}, {});
  step(wrong, other, longer, 7);
  expect_refused(wrong.whole_state(), "b.exp_avg has shape [5], this config makes [3]");
  NamedParameters cut = wrong.whole_state();
  cut.resize(4);
  cut.back().second = cut.back().second.narrow(0, 0, 3);
  expect_refused(cut, "b.exp_avg_sq");
  expect_refused({}, "a.exp_avg");
}

// Whatever makes the update overflow, every bit stays, and the next sound step is that of an optimizer that
// never saw it.
TEST(AdamW, AnUpdateThatIsNotFiniteChangesNothing) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  struct Broken {
    const char* what;
    double lr, gradient;
  };
  for (const Broken& broken : {Broken{"learning rate", 1e38, 1},
                               {"beyond float32", 1e300, 1},
                               {"zero gradient", 1e39, 0},
                               {"square of the gradient", 1e-3, 1e25},
                               {"decay", 1e20, 1},
                               {"gradient", 1e-3, kNan},
                               {"rate", kNan, 1}}) {
    OptimizerConfig config;
    if (broken.what == std::string("decay")) config.weight_decay = 1e6, config.eps = 1e20;
    at::Tensor one = normal({6, 5}, 1, at::kFloat, true), two = one.detach().clone().requires_grad_(true);
    if (broken.what == std::string("decay"))
      for (at::Tensor* x : {&one, &two}) x->detach().mul_(1e15);
    AdamW tried(whole_runs({{"w", one}}), {}, config), other(whole_runs({{"w", two}}), {}, config);
    const auto sound = [](AdamW& optimizer, at::Tensor& parameter, uint64_t seed) {
      parameter.mutable_grad() = normal({6, 5}, seed, at::kFloat);
      EXPECT_TRUE(optimizer.step(1e-3, 10));
    };
    sound(tried, one, 2);
    sound(other, two, 2);
    const auto before = bits_of({one}, tried);
    one.mutable_grad() = normal({6, 5}, 3, at::kFloat) * broken.gradient;
    EXPECT_FALSE(tried.step(broken.lr, one.grad().norm().item<double>())) << broken.what;
    const auto after = bits_of({one}, tried);
    for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(before[i].equal(after[i])) << broken.what << i;
    sound(tried, one, 4);
    sound(other, two, 4);
    EXPECT_TRUE(one.equal(two)) << broken.what;
  }
}

// Large but finite: the update is made, and is the formula's.
TEST(AdamW, AnUpdateThatIsFiniteIsMade) {
  at::Tensor parameter = normal({4, 4}, 1, at::kFloat, true);
  AdamW optimizer(whole_runs({{"w", parameter}}), {}, {.weight_decay = 0.0});
  parameter.mutable_grad() = at::ones({4, 4});
  EXPECT_TRUE(optimizer.step(1e30, 4));
  EXPECT_LT(test::relative_error(parameter, at::full({4, 4}, -1e30)), 1e-6);
}

// A run is a part of a parameter: the same numbers as in the whole one, and its part of a whole state.
TEST(AdamW, DoesNotDependOnTheCut) {
  const at::Tensor whole = normal({6, 7}, 1, at::kFloat), cut = whole.clone().view({-1});
  std::vector<longreach::Run> runs;
  for (const auto& [begin, end] : {std::pair{0, 5}, {5, 5}, {5, 42}})
    runs.push_back(
        {.name = "w", .shape = {6, 7}, .begin = begin, .values = cut.narrow(0, begin, end - begin)});
  AdamW one(whole_runs({{"w", whole}}), {}, {});
  std::vector<AdamW> parts;
  for (const auto& run : runs)
    parts.emplace_back(std::vector<longreach::Run>{run}, std::set<std::string>{}, OptimizerConfig{});
  for (uint64_t step = 1; step <= 3; ++step) {
    const at::Tensor gradient = normal({6, 7}, 10 + step, at::kFloat);
    whole.mutable_grad() = gradient;
    EXPECT_TRUE(one.step(0.01, 10));
    for (size_t i = 0; i < runs.size(); ++i) {
      runs[i].values.mutable_grad() = gradient.view({-1}).narrow(0, runs[i].begin, runs[i].values.numel());
      EXPECT_TRUE(parts[i].step(0.01, 10));
      if (step == 2) parts[i].load(stored(one.whole_state()));
    }
    EXPECT_TRUE(cut.view({6, 7}).equal(whole)) << step;
  }
}

TEST(Finite, NamesTheFirstTensorThatIsNot) {
  at::Tensor good = normal({1000}, 1, at::kFloat), bad = normal({70, 30}, 2, at::kFloat),
             empty = at::empty({0});
  EXPECT_EQ(largest_magnitude({good, bad, empty}),
            std::max(good.abs().max().item<double>(), bad.abs().max().item<double>()));
  EXPECT_EQ(largest_magnitude({}), 0);
  EXPECT_EQ(first_nonfinite({{"good", good}, {"empty", empty}, {"bad", bad}}), "");
  for (const double value :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
        -std::numeric_limits<double>::infinity()}) {
    bad.view(-1)[2099] = value;
    EXPECT_EQ(first_nonfinite({{"good", good}, {"empty", empty}, {"bad", bad}, {"worse", bad}}), "bad");
    EXPECT_FALSE(std::isfinite(largest_magnitude({bad, good})));
  }
}

// The fused kernel refuses parameters of a CUDA device whose step counter lies elsewhere; no device is needed
// to see where it is.
TEST(AdamW, KeepsItsStateWhereTheParametersAre) {
  const at::Device meta(at::kMeta);
  AdamW optimizer(whole_runs({{"w", at::empty({4, 4}, at::TensorOptions(meta))}}), {}, {});
  for (const auto& [name, tensor] : optimizer.whole_state()) {
    EXPECT_EQ(tensor.device(), meta) << name;
    EXPECT_EQ(tensor.scalar_type(), at::kFloat) << name;
  }
}

TEST(Gradients, NormAndClipping) {
  at::Tensor a = normal({30}, 1, at::kFloat, true), b = normal({5, 5}, 2, at::kFloat, true);
  a.mutable_grad() = normal({30}, 3, at::kFloat);
  b.mutable_grad() = normal({5, 5}, 4, at::kFloat);
  const auto parameters = whole_runs({{"a", a}, {"b", b}});
  const double expected = std::sqrt(a.grad().to(at::kDouble).pow(2).sum().item<double>() +
                                    b.grad().to(at::kDouble).pow(2).sum().item<double>());
  EXPECT_NEAR(gradient_norm(parameters).norm, expected, 1e-5);
  EXPECT_EQ(clip_gradients(parameters, gradient_norm(parameters).norm, 1.0), 1.0);
  EXPECT_NEAR(gradient_norm(parameters).norm, 1.0, 1e-5);
  b.grad().detach().fill_(std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(gradient_norm(parameters).first_nonfinite, "b");
}

}  // namespace
}  // namespace longreach
