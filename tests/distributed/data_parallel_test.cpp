// A small torch module on ranks: at every stage what one rank gets of as many micro-batches, bit for bit.
#include "distributed/data_parallel.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "distributed/squares.h"
#include "distributed/threads.h"
#include "tests/distributed/gloo_ranks.h"
#include "tests/support/errors.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using test::normal;

constexpr int64_t kWidth = 40, kSteps = 5;

struct Layer : torch::nn::Module {
  explicit Layer(uint64_t seed) {
    weight = register_parameter("weight", normal({kWidth, kWidth}, seed, at::kFloat) * 0.2);
    bias = register_parameter("bias", normal({kWidth}, seed + 1, at::kFloat) * 0.2);
    // The last of the layer that its backward pass reads.
    gain = register_parameter("gain", normal({kWidth}, seed + 50, at::kFloat), /*requires_grad=*/false);
  }
  at::Tensor forward(const at::Tensor& x) const { return at::linear(x * gain, weight, bias).tanh() + x; }
  at::Tensor weight, bias, gain;
};

// Beside layers: parameters of its own, of which one is frozen, one unused, one used by some batches.
struct Net : torch::nn::Module {
  Net() {
    scale = register_parameter("scale", normal({kWidth}, 7, at::kFloat));
    shift = register_parameter("shift", normal({kWidth}, 8, at::kDouble), /*requires_grad=*/false);
    unused = register_parameter("unused", normal({3, 5}, 9, at::kFloat));
    sometimes = register_parameter("sometimes", normal({kWidth}, 10, at::kFloat));
    for (uint64_t i = 0; i < 3; ++i)
      layers.push_back(register_module("layer" + std::to_string(i), std::make_shared<Layer>(20 + 2 * i)));
  }
  at::Tensor forward(at::Tensor x, bool with_all) {
    x = x * scale + shift.to(at::kFloat);
    for (size_t i = 0; i < layers.size(); ++i) {
      if (guard != nullptr) guard->enter(i, x);
      x = layers[i]->forward(x);
      if (guard != nullptr) guard->leave(i, {x});
      if (i == 1 && between && x.requires_grad())
        x.register_hook([this](const at::Tensor& gradient) {
          between();
          return gradient;
        });
    }
    return (with_all ? x * sometimes : x).square().mean();
  }
  std::vector<std::shared_ptr<torch::nn::Module>> units() const { return {layers.begin(), layers.end()}; }

  at::Tensor scale, shift, unused, sometimes;
  std::vector<std::shared_ptr<Layer>> layers;
  UnitGuard* guard = nullptr;
  std::function<void()> between;  // in backward, when the last layer is done and the others are not
};

struct Setting {
  ParallelDegrees degrees;
  int stage = 0;
  int64_t micro_batches = 1;  // of the step, over all ranks
};

struct Trained {
  std::vector<at::Tensor> parameters, momenta;  // momenta: of runs
  std::vector<int64_t> begins;
  std::vector<double> norms;
};

// Gradient descent with momentum, which moves what has had a gradient.
void descend(const std::vector<Run>& runs, std::vector<at::Tensor>& momenta) {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (!runs[i].values.grad().defined()) continue;
    momenta[i].mul_(0.9).add_(runs[i].values.grad());
    runs[i].values.sub_(momenta[i], 0.05);
  }
}

Trained train(const Group& world, const Setting& setting) {
  Net net;
  const Mesh mesh = make_mesh(world, setting.degrees);
  DataParallel parallel(net, net.units(), mesh, setting.stage);
  net.guard = &parallel;
  std::vector<at::Tensor> momenta;
  for (const Run& run : parallel.runs()) {
    momenta.push_back(at::zeros_like(run.values));
    EXPECT_GE(run.begin, 0);
    EXPECT_LE(run.begin + run.values.numel(), c10::multiply_integers(run.shape));
  }
  Trained trained;
  for (int64_t step = 0; step < kSteps; ++step) {
    parallel.begin_step();
    for (int64_t m = rank_in(world); m < setting.micro_batches; m += size_of(world)) {
      parallel.begin_micro_batch(m + size_of(world) >= setting.micro_batches);
      const auto seed = static_cast<uint64_t>(100 + step * setting.micro_batches + m);
      net.forward(normal({6, kWidth}, seed, at::kFloat), m == 0).backward();
    }
    parallel.finish();
    trained.norms.push_back(parallel.squared_norm());
    descend(parallel.runs(), momenta);
    parallel.publish();
  }
  const DataParallel::Whole whole(parallel);
  for (const at::Tensor& parameter : net.parameters())
    trained.parameters.push_back(parameter.detach().clone());
  trained.momenta = momenta;
  for (const Run& run : parallel.runs()) trained.begins.push_back(run.begin);
  return trained;
}

// one: of one rank, whose runs are whole, or cut like the other's.
void expect_same(const Trained& one, const Trained& other) {
  EXPECT_EQ(one.norms, other.norms);
  ASSERT_EQ(one.parameters.size(), other.parameters.size());
  for (size_t i = 0; i < one.parameters.size(); ++i)
    EXPECT_TRUE(at::equal(one.parameters[i], other.parameters[i])) << "parameter " << i;
  ASSERT_EQ(other.momenta.size(), one.momenta.size());
  for (size_t i = 0; i < other.momenta.size(); ++i) {
    const at::Tensor& part = other.momenta[i];
    EXPECT_TRUE(at::equal(one.momenta[i].narrow(0, other.begins[i] - one.begins[i], part.numel()), part))
        << "momentum " << i;
  }
}

void expect_bits_of_one_rank(int ranks, const Setting& setting) {
  SCOPED_TRACE(testing::Message() << setting.degrees.replicate << " x " << setting.degrees.shard << " x "
                                  << setting.degrees.context << ", stage " << setting.stage);
  Trained one;
  run_ranks(1, [&](const Group&) { one = train(nullptr, {.micro_batches = setting.micro_batches}); });
  std::mutex mutex;
  run_ranks(ranks, [&](const Group& world) {
    const Trained own = train(world, setting);
    const std::lock_guard lock(mutex);
    expect_same(one, own);
  });
}

TEST(DataParallel, EveryStageHasTheBitsOfOneRank) {
  for (int ranks = 2; ranks <= 4; ++ranks)
    for (int stage = 0; stage <= 3; ++stage) expect_bits_of_one_rank(ranks, {{.shard = ranks}, stage, ranks});
}

TEST(DataParallel, SoDoesEveryMesh) {
  for (const ParallelDegrees& degrees : {ParallelDegrees{.replicate = 4},
                                         {.replicate = 2, .shard = 2},
                                         {.shard = 2, .context = 2},
                                         {.replicate = 2, .context = 2}})
    for (int stage = 0; stage <= 3; ++stage) expect_bits_of_one_rank(4, {degrees, stage, 4});
}

// Ranks without rows, which do not even say so.
TEST(DataParallel, ARankWithoutAMicroBatchAddsNothing) {
  for (int stage = 0; stage <= 2; ++stage) expect_bits_of_one_rank(3, {{.shard = 3}, stage, 2});
}

TEST(DataParallel, SoDoProcessesThatExchangeOverGloo) {
  Trained one;
  run_ranks(1, [&](const Group&) { one = train(nullptr, {.micro_batches = 2}); });
  std::mutex mutex;
  test::run_gloo_ranks(2, [&](const Group& world) {
    const Trained own = train(world, {{.shard = 2}, 3, 2});
    const std::lock_guard lock(mutex);
    expect_same(one, own);
  });
}

// Sums over micro-batches associate differently: stages 0 and 1 sum before they travel, stage 2 after.
TEST(DataParallel, SeveralMicroBatchesARankAgreeToRounding) {
  Trained one;
  run_ranks(1, [&](const Group&) { one = train(nullptr, {.micro_batches = 6}); });
  Trained of_stage[4];
  for (int stage = 0; stage <= 3; ++stage)
    run_ranks(2, [&](const Group& world) {
      const Trained own = train(world, {{.shard = 2}, stage, 6});
      if (world->rank() == 0) of_stage[stage] = own;
    });
  expect_same(of_stage[0], of_stage[1]);
  expect_same(of_stage[2], of_stage[3]);
  for (size_t i = 0; i < one.parameters.size(); ++i)
    for (const int stage : {0, 2})
      EXPECT_LE(test::relative_error(of_stage[stage].parameters[i], one.parameters[i]), 1e-6) << i;
}

// The backward pass goes on only after the last layer's gradients have been summed, over all ranks.
TEST(DataParallel, SumsWhileTheBackwardPassRuns) {
  for (int stage = 0; stage <= 3; ++stage)
    run_ranks(2, [&](const Group& world) {
      Net net;
      DataParallel parallel(net, net.units(), make_mesh(world, {.shard = 2}), stage);
      net.guard = &parallel;
      int64_t seen = -1;
      net.between = [&] {
        const auto start = std::chrono::steady_clock::now();  // who never sums fails, rather than hangs
        while (parallel.summed() < 1 && std::chrono::steady_clock::now() - start < std::chrono::minutes(2))
          std::this_thread::yield();
        seen = parallel.summed();
      };
      parallel.begin_step();
      parallel.begin_micro_batch(true);
      net.forward(normal({6, kWidth}, 1, at::kFloat), true).backward();
      EXPECT_EQ(seen, 1);
      parallel.finish();
      EXPECT_EQ(parallel.summed(), 4);
    });
}

TEST(DataParallel, ARankThatIsLostIsSaidWhereTheStepEnds) {
  bool said = false;
  const auto body = [&](const Group& world) {
    Net net;
    DataParallel parallel(net, net.units(), make_mesh(world, {.shard = 2}), 2);
    parallel.begin_step();
    parallel.begin_micro_batch(true);
    check<DataError>(world->rank() == 0, "this one");
    net.forward(normal({6, kWidth}, 1, at::kFloat), true).backward();
    try {
      parallel.finish();
    } catch (const RankError& error) {
      said = std::string(error.what()).find("rank 1 did not come to \"gradients\"") != std::string::npos;
      throw;
    }
  };
  EXPECT_THROW(run_ranks(2, body), DataError);
  EXPECT_TRUE(said);
}

TEST(DataParallel, SaysWhatItCannotDo) {
  Net net;
  test::expect_error<ConfigError>("parallel.zero_stage = 3 needs units",
                                  [&] { const DataParallel parallel(net, {}, {}, 3); });
  test::expect_error<ConfigError>("expected 0 to 3", [&] { const DataParallel parallel(net, {}, {}, 4); });
  net.shift.set_requires_grad(true);
  test::expect_error<ConfigError>("shift: is Double; parameters that train must be float32",
                                  [&] { const DataParallel parallel(net, {}, {}, 0); });
}

// The first one's gradients have left already.
TEST(DataParallel, RefusesASecondBackwardPassInOneMicroBatch) {
  Net net;
  DataParallel parallel(net, net.units(), {}, 0);
  parallel.begin_step();
  parallel.begin_micro_batch(true);
  net.forward(normal({6, kWidth}, 1, at::kFloat), true).backward();
  EXPECT_THROW(net.forward(normal({6, kWidth}, 1, at::kFloat), true).backward(), Error);
}

// A layer's parameters take memory while it is used, in both passes.
TEST(DataParallel, AtStage3ParametersComeAndGo) {
  run_ranks(2, [&](const Group& world) {
    Net net;
    DataParallel parallel(net, net.units(), make_mesh(world, {.shard = 2}), 3);
    net.guard = &parallel;
    const auto there = [&] {
      std::vector<bool> there;
      for (const at::Tensor& parameter : net.parameters()) there.push_back(parameter.storage().nbytes() > 0);
      return there;
    };
    const std::vector<bool> none(13, false);
    EXPECT_EQ(there(), none);
    parallel.begin_step();
    parallel.begin_micro_batch(true);
    std::vector<bool> own = none;
    std::fill_n(own.begin(), 4, true);
    EXPECT_EQ(there(), own);
    std::vector<bool> seen;
    net.between = [&] { seen = there(); };
    const at::Tensor loss = net.forward(normal({6, kWidth}, 1, at::kFloat), true);
    EXPECT_EQ(there(), own);
    loss.backward();
    EXPECT_EQ(there(), own);
    parallel.finish();
    EXPECT_EQ(there(), none);
    std::fill_n(own.begin() + 7, 6, true);  // the second layer is about to be used, the third has been
    EXPECT_EQ(seen, own);
    {
      const DataParallel::Whole whole(parallel);
      EXPECT_EQ(there(), std::vector<bool>(13, true));
      const at::NoGradGuard no_grad;
      net.layers[0]->bias.fill_(3);
      parallel.take_shares();
    }
    EXPECT_EQ(there(), none);
    const DataParallel::Whole whole(parallel);
    EXPECT_TRUE(at::equal(net.layers[0]->bias, at::full({kWidth}, 3.0)));
  });
}

// The closed formulae, of padded units. Stage 3 gathers layers for each pass, and what is left once.
TEST(DataParallel, SendsWhatTheFormulaeSay) {
  for (const int64_t ranks : {2, 4})
    for (int stage = 0; stage <= 3; ++stage)
      run_ranks(static_cast<int>(ranks), [&](const Group& world) {
        Net net;
        DataParallel parallel(net, net.units(), make_mesh(world, {.shard = ranks}), stage);
        net.guard = &parallel;
        parallel.begin_step();
        parallel.begin_micro_batch(true);
        net.forward(normal({6, kWidth}, 1, at::kFloat), true).backward();
        parallel.finish();
        parallel.publish();
        Traffic traffic = parallel.take_traffic();
        const int64_t block = kSquaresBlock * ranks,
                      layer = (kWidth * (kWidth + 1) + block - 1) / block * block;
        const int64_t all = 4 * (3 * layer + block), sent = all / ranks * (ranks - 1);
        EXPECT_EQ(traffic["gradients"].bytes, stage == 0 ? 2 * sent : sent) << stage;
        const int64_t gathered = 2 * 4 * 3 * (layer + block) + 4 * block + 8 * block;  // frozen ones too
        const int64_t expected[] = {0, sent, sent, gathered / ranks * (ranks - 1)};
        EXPECT_EQ(traffic["parameters"].bytes, expected[stage]) << stage;
      });
}

TEST(DataParallel, LeavesAModelThatTrainsWithoutIt) {
  Net net;
  { const DataParallel parallel(net, net.units(), {}, 0); }
  net.forward(normal({6, kWidth}, 1, at::kFloat), true).backward();
  EXPECT_TRUE(net.scale.grad().defined());
  EXPECT_FALSE(net.unused.grad().defined());
}

TEST(Squares, DoNotDependOnTheCut) {
  const at::Tensor x = normal({10 * kSquaresBlock}, 3, at::kFloat);
  const double expected = x.to(at::kDouble).square().sum().item<double>();
  const at::Tensor all = sums_of_squares(x, kSquaresBlock);
  EXPECT_NEAR(added(all), expected, 1e-10 * expected);
  for (const int64_t cut : {1, 4, 9}) {
    const int64_t at = cut * kSquaresBlock;
    EXPECT_TRUE(at::equal(all.narrow(0, 0, cut), sums_of_squares(x.narrow(0, 0, at), kSquaresBlock)));
    EXPECT_TRUE(at::equal(all.narrow(0, cut, 10 - cut),
                          sums_of_squares(x.narrow(0, at, x.numel() - at), kSquaresBlock)));
  }
  const at::Tensor odd = x.narrow(0, 0, kSquaresBlock + 13);
  EXPECT_NEAR(added(sums_of_squares(odd, kSquaresBlock)), odd.to(at::kDouble).square().sum().item<double>(),
              1e-7);
}

}  // namespace
}  // namespace longreach
