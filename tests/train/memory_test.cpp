// What a dry run says that a rank needs is what its tensors take, within a tenth.
#include <gtest/gtest.h>

#include "distributed/threads.h"
#include "models/weight_dtype.h"
#include "tests/support/live_bytes.h"
#include "tests/support/small_run.h"
#include "train/decay_groups.h"
#include "train/gradient_norm.h"
#include "train/optimizer.h"
#include "train/run_size.h"
#include "train/step.h"

namespace longreach {
namespace {

struct Setting {
  int64_t tokens;
  const char *recompute, *dtype;
  int stage = 0;
  const char* base_dtype = nullptr;  // null: no adapters
};

RunConfig config_of(const Setting& setting) {
  RunConfig config = test::small_run(setting.tokens, {{.layers = "all", .config = DenseConfig{}}});
  config.model.hidden_size = 256;
  config.model.head_dim = 64;
  config.model.num_hidden_layers = config.model.num_attention_heads = config.model.num_key_value_heads = 4;
  config.model.intermediate_size = 704;
  config.model.resolve(256);
  config.training.mixed_precision_param = setting.dtype;
  config.activation_checkpoint = setting.recompute;
  config.parallel.zero_stage = setting.stage;
  if (setting.base_dtype != nullptr)
    config.adapter = {
        .type = "lora",
        .target_modules = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
        .base_dtype = setting.base_dtype};
  return config;
}

void train_a_step(const Group& world, const RunConfig& config, const ParallelDegrees& degrees) {
  const auto loader = test::small_loader(config.training.seq_len, {0, 700, 1500, 1590, 2700, 9000});
  const Mesh mesh = make_mesh(world, degrees);
  const auto model = std::make_shared<Transformer>(config.model, 1);
  add_adapters(*model, config.adapter, 1);
  if (config.adapter.base_dtype == "bfloat16") store_frozen_weights_as(*model, at::kBFloat16);
  DataParallel parallel(*model, model->units(), mesh, static_cast<int>(config.parallel.zero_stage));
  model->set_unit_guard(&parallel);
  AdamW optimizer(parallel.runs(), undecayed_parameters(*model), {},
                  [&](double largest) { return parallel.largest(largest); });
  const StepPlan plan = step_plan(config.training, mesh.data);
  const LossOptions options{.activation_checkpoint = config.activation_checkpoint,
                            .autocast_bf16 = config.training.mixed_precision_param == "bfloat16"};
  StepData data = load_step(loader, config.training, plan, context_plan(config, model, mesh), 0);
  add_other_ranks(data, mesh.data);
  parallel.begin_step();
  backward_of_step(*model, parallel, data, 0, config, options, mesh);
  parallel.finish();
  EXPECT_TRUE(optimizer.step(1e-3, gradient_norm(parallel, world).norm));
  parallel.publish();
}

// Of a rank; ranks that share a row need most at the same time.
double measured(const RunConfig& config, const ParallelDegrees& degrees) {
  const auto ranks = static_cast<int>(degrees.context);
  test::LiveBytes& tensors = test::LiveBytes::counted();
  tensors.forget_most();
  const int64_t before = tensors.now();
  run_ranks(ranks, [&](const Group& world) { train_a_step(world, config, degrees); });
  return static_cast<double>(tensors.most() - before) / ranks;
}

void expect_planned(const Setting& setting, const ParallelDegrees& degrees) {
  SCOPED_TRACE(testing::Message() << degrees.context << " ranks, " << setting.tokens << " tokens, recompute "
                                  << setting.recompute << ", " << setting.dtype << ", stage " << setting.stage
                                  << ", base " << (setting.base_dtype ? setting.base_dtype : "trains"));
  const RunConfig config = config_of(setting);
  const double needed = measured(config, degrees);
  EXPECT_NEAR(size_of_run(config, degrees).total(), needed, 0.1 * needed);
}

TEST(Memory, OfOneRankIsPlanned) {
  for (const int64_t tokens : {512, 2048})
    for (const char* recompute : {"none", "full"})
      for (const char* dtype : {"float32", "bfloat16"}) expect_planned({tokens, recompute, dtype}, {});
}

TEST(Memory, OfAdaptersBesideAFrozenModelIsPlanned) {
  for (const char* base_dtype : {"float32", "bfloat16"})
    for (const char* dtype : {"float32", "bfloat16"})
      for (const char* recompute : {"none", "full"})
        expect_planned({2048, recompute, dtype, 0, base_dtype}, {});
}

TEST(Memory, OfTwoRanksThatShareARowIsPlanned) {
  for (const int stage : {0, 2})
    for (const char* dtype : {"float32", "bfloat16"})
      expect_planned({2048, "none", dtype, stage}, {.context = 2});
  expect_planned({2048, "full", "bfloat16"}, {.context = 2});
}

}  // namespace
}  // namespace longreach
