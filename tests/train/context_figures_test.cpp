// What a step of ranks that share micro-batches tells of how they share them.
#include "train/context_figures.h"

#include <gtest/gtest.h>

#include <mutex>

#include "distributed/threads.h"
#include "tests/support/small_run.h"
#include "train/step.h"

namespace longreach {
namespace {

constexpr int64_t kTokens = 512;

RunConfig config_of(const AttentionConfig& attention, const std::string& balancer = "ptrr") {
  RunConfig config = test::small_run(kTokens, {{.layers = "all", .config = attention}});
  config.parallel.context_parallel_load_balancer = balancer;
  return config;
}

data::TokenBatch one_document() {
  data::TokenBatch batch{.rows = 1, .seq_len = kTokens};
  for (int64_t t = 0; t < kTokens; ++t) {
    batch.tokens.push_back(t * t % 61);
    batch.labels.push_back((t + 1) * (t + 1) % 61);
    batch.positions.push_back(t);
  }
  batch.cu_seqlens = {0, static_cast<int32_t>(kTokens)};
  return batch;
}

// Of one step of ranks that all share a row.
std::optional<ContextFigures> figures_of(int ranks, const RunConfig& config) {
  std::optional<ContextFigures> figures;
  std::mutex mutex;
  run_ranks(ranks, [&](const Group& world) {
    const Mesh mesh = make_mesh(world, {.context = ranks});
    const auto model = std::make_shared<Transformer>(config.model, 1);
    DataParallel parallel(*model, model->units(), mesh, 0);
    StepData data{.plan = step_plan(config.training, mesh.data)};
    data.micro_batches.push_back(to_model_input(one_document(), context_plan(config, model, mesh)));
    data.tokens = data.labelled = kTokens;
    parallel.begin_step();
    const StepLosses losses = backward_of_step(*model, parallel, data, 0, config, {}, mesh);
    parallel.finish();
    const std::lock_guard lock(mutex);
    if (world->rank() == 0) figures = losses.context;
  });
  return figures;
}

TEST(ContextFigures, OneRankSharesNothing) {
  const RunConfig config = config_of(DenseConfig{});
  run_ranks(1, [&](const Group&) {
    Transformer model(config.model, 1);
    DataParallel parallel(model, model.units(), {}, 0);
    StepData data{.plan = step_plan(config.training, nullptr),
                  .micro_batches = {to_model_input(one_document())}};
    data.tokens = data.labelled = kTokens;
    parallel.begin_step();
    EXPECT_FALSE(backward_of_step(model, parallel, data, 0, config, {}, {}).context.has_value());
  });
}

// What is predicted is what the layout costs by the model's own count; head and tail do it for one document.
TEST(ContextFigures, PredictTheLayoutsImbalance) {
  const RunConfig contiguous = config_of(DenseConfig{}, "none"), balanced = config_of(DenseConfig{});
  const auto model = std::make_shared<Transformer>(contiguous.model, 1);
  const Cost cost = context_plan(contiguous, model, {}).cost;
  for (const int ranks : {2, 4}) {
    const auto none = figures_of(ranks, contiguous), ptrr = figures_of(ranks, balanced);
    ASSERT_TRUE(none && ptrr);
    const double whole = cost(kTokens), before_last = cost(kTokens - kTokens / ranks);
    EXPECT_NEAR(none->imbalance, (whole - before_last) * ranks / whole, 1e-9);
    EXPECT_LT(ptrr->imbalance, none->imbalance);
    EXPECT_FALSE(none->selected_union) << "dense attention chooses no blocks";
    for (const auto& figures : {none, ptrr}) {
      EXPECT_GE(figures->slowest_over_mean, 1.0 - 1e-9);
      EXPECT_LE(figures->slowest_over_mean, ranks);
    }
  }
}

// Every block where all may be chosen, none where a query has its own alone; every kind that chooses.
TEST(ContextFigures, CountTheBlocksThatRanksChose) {
  NsaConfig nsa{.num_blocks = 64};
  const auto all = figures_of(2, config_of(nsa, "none"));
  ASSERT_TRUE(all && all->selected_union);
  EXPECT_EQ(*all->selected_union, 1.0);
  nsa.num_blocks = 1, nsa.first_blocks = 0, nsa.latest_blocks = 1;
  const auto own = figures_of(2, config_of(nsa, "none"));
  ASSERT_TRUE(own && own->selected_union);
  EXPECT_EQ(*own->selected_union, 0.0);
  int choose = 0;
  for (const AttentionConfig& kind : all_attention_configs()) {
    SCOPED_TRACE(kind_of(kind));
    const auto figures = figures_of(2, config_of(kind, "none"));
    ASSERT_TRUE(figures);
    if (!figures->selected_union) continue;
    ++choose;
    EXPECT_GT(*figures->selected_union, 0.0);
    EXPECT_LE(*figures->selected_union, 1.0);
  }
  EXPECT_GE(choose, 2);
}

}  // namespace
}  // namespace longreach
