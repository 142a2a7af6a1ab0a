// What a dry run says that ranks send of the rows they share is what a step sends.
#include "train/context_traffic.h"

#include <gtest/gtest.h>

#include "distributed/threads.h"
#include "tests/support/small_run.h"
#include "train/run_size.h"
#include "train/step.h"

namespace longreach {
namespace {

constexpr int64_t kTokens = 512;

RunConfig config_of(const AttentionConfig& attention, const std::string& recompute = "none",
                    const std::string& dtype = "float32") {
  RunConfig config = test::small_run(kTokens, {{.layers = "all", .config = attention}});
  config.training.gradient_accumulation_steps = 2;
  config.training.mixed_precision_param = dtype;
  config.activation_checkpoint = recompute;
  return config;
}

// Documents of 90 to 1300 tokens.
data::TrainLoader loader() { return test::small_loader(kTokens, {0, 700, 1500, 1590, 2700, 4000}); }

// Each rank trains one step and compares.
void expect_what_a_step_sends(const RunConfig& config, const ParallelDegrees& degrees) {
  const data::TrainLoader data_loader = loader();
  const auto planned = context_traffic(config, model_of_shapes(config), data_loader, degrees);
  ASSERT_EQ(static_cast<int64_t>(planned.size()), degrees.context);
  const auto ranks = static_cast<int>(degrees.replicate * degrees.shard * degrees.context);
  run_ranks(ranks, [&](const Group& world) {
    const Mesh mesh = make_mesh(world, degrees);
    const auto model = std::make_shared<Transformer>(config.model, 1);
    DataParallel parallel(*model, model->units(), mesh, 0);
    const StepPlan plan = step_plan(config.training, mesh.data);
    StepData data = load_step(data_loader, config.training, plan, context_plan(config, model, mesh), 0);
    add_other_ranks(data, mesh.data);
    parallel.begin_step();
    mesh.context->forget_traffic();
    const LossOptions options{.activation_checkpoint = config.activation_checkpoint,
                              .autocast_bf16 = config.training.mixed_precision_param == "bfloat16"};
    backward_of_step(*model, parallel, data, 0, config, options, mesh);
    const Traffic sent = mesh.context->traffic();
    parallel.finish();
    if (world->rank() >= degrees.context) return;
    const auto& own = planned[static_cast<size_t>(world->rank())];
    for (const auto& [label, moved] : sent)
      EXPECT_TRUE(label == "step" || own.contains(label)) << label << " was not planned";
    for (const auto& [label, bytes] : own) {
      const auto found = sent.find(label);
      const int64_t moved = found == sent.end() ? 0 : found->second.bytes;
      if (own.contains("chosen blocks") && label.starts_with("keys") && !label.starts_with("keys of"))
        EXPECT_LE(moved, bytes) << label;
      else
        EXPECT_EQ(moved, bytes) << label;
    }
  });
}

TEST(ContextTraffic, IsThatOfAStep) {
  for (const AttentionConfig& attention : all_attention_configs()) {
    SCOPED_TRACE(kind_of(attention));
    expect_what_a_step_sends(config_of(attention), {.context = 2});
    expect_what_a_step_sends(config_of(attention, "full", "bfloat16"), {.context = 2});
  }
}

// The first group's, whose micro-batches are every second one.
TEST(ContextTraffic, IsThatOfTheFirstContextGroup) {
  expect_what_a_step_sends(config_of(DenseConfig{}), {.shard = 2, .context = 2});
}

}  // namespace
}  // namespace longreach
