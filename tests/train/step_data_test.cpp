// Who trains which micro-batch: however many ranks there are, a step sees the same samples.
#include "train/step_data.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>

#include "core/error.h"
#include "distributed/threads.h"
#include "tests/data/fixtures.h"
#include "tests/support/errors.h"

namespace longreach {
namespace {

TrainingConfig training() {
  TrainingConfig config;
  config.seq_len = 16;
  config.batch_size = 2;
  config.global_batch_size = 8;
  return config;
}

data::TrainLoader loader() {
  const auto source = data::testing::counting_source({1500, 2500});
  return {{std::make_shared<data::testing::ByteLevel>(), {source}, {}, {1.0}}, {.seq_len = 16, .seed = 3}};
}

// Of the tokens of each micro-batch of each of three steps.
using Hashes = std::map<std::pair<int64_t, int64_t>, size_t>;

size_t hash_of(const at::Tensor& tokens) {
  const auto* bytes = static_cast<const char*>(tokens.const_data_ptr());
  return std::hash<std::string_view>()({bytes, tokens.nbytes()});
}

Hashes seen_by(int ranks) {
  Hashes hashes;
  std::mutex mutex;
  run_ranks(ranks, [&](const Group& group) {
    const StepPlan plan = step_plan(training(), group);
    for (int64_t step = 0; step < 3; ++step) {
      StepData data = load_step(loader(), training(), plan, {}, step);
      const std::lock_guard lock(mutex);
      for (size_t i = 0; i < data.micro_batches.size(); ++i) {
        const int64_t number = plan.first + static_cast<int64_t>(i) * plan.every;
        hashes[{step, number}] = hash_of(data.micro_batches[i].tokens);
      }
    }
  });
  return hashes;
}

TEST(StepData, TheNumberOfRanksChangesNoSample) {
  const Hashes one = seen_by(1);
  EXPECT_EQ(one.size(), 3u * 4);
  EXPECT_EQ(seen_by(2), one);
  EXPECT_EQ(seen_by(4), one);
}

void add_pairs(const ModelInput& micro, std::vector<std::pair<int64_t, int64_t>>& pairs) {
  for (int64_t i = 0; i < micro.tokens.numel(); ++i)
    pairs.emplace_back(micro.tokens.const_data_ptr<int64_t>()[i], micro.labels.const_data_ptr<int64_t>()[i]);
}

TEST(StepData, CountsTheWholeStep) {
  const StepData whole = load_step(loader(), training(), step_plan(training(), nullptr), {}, 0);
  run_ranks(2, [&](const Group& group) {
    StepData part = load_step(loader(), training(), step_plan(training(), group), {}, 0);
    EXPECT_LT(part.tokens, whole.tokens);
    add_other_ranks(part, group);
    EXPECT_EQ(part.tokens, whole.tokens);
    EXPECT_EQ(part.labelled, whole.labelled);
  });
}

// Of the row that they share each has spans at multiples of the grain within documents; what a step is
// divided by counts all of it.
TEST(StepData, RanksThatShareARowHaveItsTokensBetweenThem) {
  const StepPlan plan = step_plan(training(), nullptr);
  const StepData whole = load_step(loader(), training(), plan, {}, 0);
  for (const Balance balance : {Balance::none, Balance::ptrr}) {
    std::vector<std::pair<int64_t, int64_t>> shared, expected;  // token and label, sorted
    std::mutex mutex;
    run_ranks(3, [&](const Group& group) {
      const ContextPlan context{.ranks = group, .grain = 4, .balance = balance};
      const StepData part = load_step(loader(), training(), plan, context, 0);
      EXPECT_EQ(part.tokens, whole.tokens);
      EXPECT_EQ(part.labelled, whole.labelled);
      const std::lock_guard lock(mutex);
      for (const ModelInput& micro : part.micro_batches) {
        EXPECT_EQ(micro.tokens.size(0), 1);
        EXPECT_EQ(micro.tokens.size(1), micro.batch.context->tokens());
        EXPECT_EQ(micro.batch.positions.sizes(), micro.tokens.sizes());
        add_pairs(micro, shared);
      }
    });
    for (const ModelInput& micro : whole.micro_batches) add_pairs(micro, expected);
    std::sort(shared.begin(), shared.end());
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(shared, expected);
  }
}

TEST(StepPlan, RefusesWhatDoesNotDivide) {
  TrainingConfig config = training();
  run_ranks(3, [&](const Group& group) {
    test::expect_error<ConfigError>(
        "training.global_batch_size = 8, expected a multiple of training.batch_size x "
        "data ranks = 2 x 3",
        [&] { step_plan(training(), group); });
  });
  config.gradient_accumulation_steps = 2;
  test::expect_error<ConfigError>("contradicts training.global_batch_size = 8, which makes 4",
                                  [&] { step_plan(config, nullptr); });
  config.gradient_accumulation_steps = 4;
  EXPECT_EQ(step_plan(config, nullptr).micro_batches, 4);
  config.global_batch_size = 0;
  run_ranks(2, [&](const Group& group) {
    const StepPlan plan = step_plan(config, group);
    EXPECT_EQ(plan.micro_batches, 8);
    EXPECT_EQ(plan.first, group->rank());
    EXPECT_EQ(plan.every, 2);
  });
}

}  // namespace
}  // namespace longreach
