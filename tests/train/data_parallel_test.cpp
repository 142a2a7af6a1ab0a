// Steps of several ranks: at every stage, with recomputation, with adapters beside a frozen model, the
// losses, norms, parameters and moments of one rank, bit for bit.
#include "distributed/data_parallel.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <mutex>

#include "distributed/threads.h"
#include "layers/basic/module.h"
#include "tests/support/small_run.h"
#include "train/gradient_norm.h"
#include "train/optimizer.h"
#include "train/step.h"
#include "train/step_data.h"

namespace longreach {
namespace {

constexpr int64_t kSteps = 20, kTokens = 48;

struct Setting {
  const char* what;
  const char* recompute = "none";
  const char* adapter = "none";
};

RunConfig config_of(const Setting& setting) {
  RunConfig config = test::small_hybrid_run(kTokens);
  config.training.max_norm = 0.5;
  config.activation_checkpoint = setting.recompute;
  config.adapter.type = setting.adapter;
  config.adapter.lora_dropout = 0.1;
  config.adapter.modules_to_save = {"embed_tokens"};
  return config;
}

data::TrainLoader loader() { return test::small_loader(kTokens, {0, 700, 1500, 1530, 4000}); }

struct Trained {
  std::vector<double> numbers;  // of each step: loss, norm
  NamedParameters parameters;
  RankRuns state;
};

// Of `micro_batches` a step, by however many ranks there are.
Trained train(const Group& world, const ParallelDegrees& degrees, int stage, int64_t micro_batches,
              const Setting& setting) {
  RunConfig config = config_of(setting);
  config.training.gradient_accumulation_steps = micro_batches / size_of(world);
  const Mesh mesh = make_mesh(world, degrees);
  Transformer model(config.model, 1);
  add_adapters(model, config.adapter, 1);
  DataParallel parallel(model, model.units(), mesh, stage);
  model.set_unit_guard(&parallel);
  AdamW optimizer(parallel.runs(), undecayed_parameters(model), {},
                  [&](double largest) { return parallel.largest(largest); });
  const LossOptions options{.z_loss = 1e-3, .activation_checkpoint = config.activation_checkpoint};
  const StepPlan plan = step_plan(config.training, mesh.data);
  Trained trained;
  for (int64_t step = 0; step < kSteps; ++step) {
    StepData data = load_step(loader(), config.training, plan, {}, step);
    add_other_ranks(data, mesh.data);
    parallel.begin_step();
    const StepLosses losses = backward_of_step(model, parallel, data, step, config, options, mesh);
    parallel.finish();
    const GradientNorm gradients = gradient_norm(parallel, world);
    trained.numbers.insert(trained.numbers.end(), {losses.loss, gradients.norm});
    const double norm = clip_gradients(parallel.runs(), gradients.norm, config.training.max_norm);
    EXPECT_LE(norm, config.training.max_norm);
    EXPECT_TRUE(optimizer.step(3e-3, norm));
    parallel.publish();
  }
  const DataParallel::Whole whole(parallel);
  for (const auto& item : model.named_parameters())
    trained.parameters.emplace_back(item.key(), item.value().detach().clone());
  trained.state = optimizer.state();
  return trained;
}

void expect_equal(const NamedParameters& one, const NamedParameters& other) {
  ASSERT_EQ(one.size(), other.size());
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one[i].first, other[i].first);
    EXPECT_TRUE(at::equal(one[i].second, other[i].second)) << one[i].first;
  }
}

// The runs of one rank are whole.
void expect_parts(const RankRuns& one, const RankRuns& other) {
  ASSERT_EQ(one.own.size(), other.own.size());
  for (size_t i = 0; i < one.own.size(); ++i) {
    const Run &whole = one.own[i], &part = other.own[i];
    EXPECT_EQ(whole.name, part.name);
    EXPECT_TRUE(at::equal(whole.values.narrow(0, part.begin, part.values.numel()), part.values)) << part.name;
  }
  ASSERT_EQ(one.common.size(), other.common.size());
  for (size_t i = 0; i < one.common.size(); ++i)
    EXPECT_TRUE(at::equal(one.common[i].values, other.common[i].values)) << one.common[i].name;
}

constexpr Setting kSettings[] = {
    {"plain"}, {"recomputed", "full"}, {"adapters", "none", "lora"}, {"recomputed adapters", "full", "lora"}};

void expect_one_rank(int ranks, const ParallelDegrees& degrees, int stage, const Setting& setting,
                     const Trained& one) {
  SCOPED_TRACE(testing::Message() << setting.what << ", " << degrees.replicate << " x " << degrees.shard
                                  << " x " << degrees.context << ", stage " << stage);
  std::mutex mutex;
  run_ranks(ranks, [&](const Group& world) {
    const Trained own = train(world, degrees, stage, ranks, setting);
    const std::lock_guard lock(mutex);
    EXPECT_EQ(one.numbers, own.numbers);
    expect_equal(one.parameters, own.parameters);
    expect_parts(one.state, own.state);
  });
}

Trained by_one_rank(int64_t micro_batches, const Setting& setting) {
  Trained one;
  run_ranks(1, [&](const Group&) { one = train(nullptr, {}, 0, micro_batches, setting); });
  return one;
}

TEST(DataParallelSteps, HaveTheBitsOfOneRankAtEveryStage) {
  for (const Setting& setting : kSettings)
    for (int ranks = 2; ranks <= 4; ++ranks) {
      const Trained one = by_one_rank(ranks, setting);
      EXPECT_GT(one.numbers[0], one.numbers[2 * kSteps - 2]) << "it does not learn";
      for (int stage = 0; stage <= 3; ++stage) expect_one_rank(ranks, {.shard = ranks}, stage, setting, one);
    }
}

TEST(DataParallelSteps, SoDoOtherMeshes) {
  const Trained one = by_one_rank(4, kSettings[0]);
  for (int stage = 0; stage <= 3; ++stage)
    expect_one_rank(4, {.replicate = 2, .shard = 2}, stage, kSettings[0], one);
  expect_one_rank(4, {.replicate = 4}, 2, kSettings[0], one);
}

// Of the storages behind tensors, each once.
int64_t bytes_of(const std::vector<at::Tensor>& tensors) {
  std::map<const void*, int64_t> storages;
  for (const at::Tensor& tensor : tensors)
    if (tensor.defined())
      storages[tensor.storage().unsafeGetStorageImpl()] = static_cast<int64_t>(tensor.storage().nbytes());
  int64_t bytes = 0;
  for (const auto& [storage, size] : storages) bytes += size;
  return bytes;
}

// All that lasts. Before the last micro-batch of a step stages 0 and 1 hold whole gradients.
int64_t kept_bytes(Transformer& model, const DataParallel& parallel, const AdamW& optimizer) {
  std::vector<at::Tensor> tensors;
  for (const at::Tensor& parameter : model.parameters())
    tensors.insert(tensors.end(), {parameter, parameter.grad()});
  for (const Run& run : parallel.runs()) tensors.insert(tensors.end(), {run.values, run.values.grad()});
  for (const Run& run : all_of(optimizer.state())) tensors.push_back(run.values);
  return bytes_of(tensors);
}

TEST(DataParallelSteps, KeepWhatTheFormulaeSay) {
  ModelConfig config = test::small_model();
  config.hidden_size = 96;
  config.head_dim = 24;
  config.intermediate_size = 256;
  config.num_hidden_layers = 4;
  config.resolve(256);
  const auto kept = [&](const Group& world, int stage) {
    Transformer model(config, 1);
    DataParallel parallel(model, model.units(), make_mesh(world, {.shard = size_of(world)}), stage);
    model.set_unit_guard(&parallel);
    AdamW optimizer(parallel.runs(), {}, {});
    const at::Tensor tokens = at::zeros({1, 8}, at::kLong);
    parallel.begin_step();
    for (const bool last : {false, true}) {
      if (last && stage < 2) break;
      parallel.begin_micro_batch(last);
      model.loss(tokens, tokens, whole_rows(1, 8)).loss_sum.backward();
    }
    if (stage >= 2) parallel.finish();
    return kept_bytes(model, parallel, optimizer);
  };
  const Transformer model(config, 1);
  double n = 0, unit = 0;
  for (const at::Tensor& parameter : model.parameters()) n += static_cast<double>(parameter.numel());
  for (const at::Tensor& parameter : model.units()[0]->parameters())
    unit += 4.0 * static_cast<double>(parameter.numel());
  for (const int ranks : {2, 4})
    run_ranks(ranks, [&](const Group& world) {
      const double p = ranks;
      const double formulae[] = {16, 8 + 8 / p, 4 + 12 / p, 16 / p};
      for (int stage = 0; stage <= 3; ++stage) {
        const auto bytes = static_cast<double>(kept(world, stage));
        EXPECT_NEAR(bytes, formulae[stage] * n, unit) << ranks << " ranks, stage " << stage;
      }
    });
}

}  // namespace
}  // namespace longreach
