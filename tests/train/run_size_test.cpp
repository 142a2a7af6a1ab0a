// What a run costs is counted from its config, and what cannot fit is refused before it is made.
#include "train/run_size.h"

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "distributed/data_parallel.h"
#include "distributed/threads.h"
#include "layers/basic/initial_values.h"
#include "layers/basic/initialization.h"
#include "tests/support/errors.h"

namespace longreach {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

RunConfig config_of(const std::string& model) {
  RunConfig config = parse_run_config("[data]\ntrain = [\"x.txt\"]\n" + model, "run.toml");
  config.resolve_model(257, "run.toml");
  return config;
}

int64_t built(const RunConfig& config) {
  int64_t count = 0;
  for (const auto& parameter : Transformer(config.model, 1).parameters()) count += parameter.numel();
  return count;
}

TEST(RunSize, CountsEveryMechanismAsItIsBuilt) {
  for (const std::string& kind : attention_kinds()) {
    SCOPED_TRACE(kind);
    const RunConfig config = config_of(
        "[model]\nhidden_size = 64\nnum_hidden_layers = 2\nnum_attention_heads = 4\nqk_norm = true\n"
        "attention_bias = true\ntie_word_embeddings = false\n[[model.attention]]\nkind = \"" +
        kind + "\"\n");
    const RunSize size = size_of_run(config);
    EXPECT_EQ(size.parameters, built(config));
    EXPECT_EQ(size.trained, size.parameters);
    EXPECT_DOUBLE_EQ(size.flops_per_token,
                     Transformer(config.model, 1).flops_per_token(config.training.seq_len));
  }
}

TEST(RunSize, CountsOptionsOfNsaAndSeer) {
  for (const char* options :
       {"kind = \"nsa\"\ncompress = \"linear\"\nlayout = \"lucidrains\"\n",
        "kind = \"nsa\"\ncompress = \"mlp\"\n", "kind = \"nsa\"\ncompress = \"weighted\"\n",
        "kind = \"seer\"\ngate_qk_norm = true\n"}) {
    SCOPED_TRACE(options);
    RunConfig config;
    try {
      config = config_of(std::string("[model]\nhidden_size = 64\n[[model.attention]]\n") + options);
    } catch (const ConfigError& error) {
      ADD_FAILURE() << error.what();
      continue;
    }
    EXPECT_EQ(size_of_run(config).parameters, built(config));
  }
}

TEST(RunSize, AddsWhatTrainingKeepsOfTrainedParameters) {
  const RunSize whole = size_of_run(config_of(""));
  EXPECT_EQ(whole.weights, 4.0 * static_cast<double>(whole.parameters));
  EXPECT_EQ(whole.gradients, whole.weights);
  EXPECT_EQ(whole.moments, 2 * whole.weights);
  EXPECT_GT(whole.activations, whole.least_activations);
  const RunSize adapted = size_of_run(config_of("[adapter]\ntype = \"lora\"\n"));
  EXPECT_GT(adapted.parameters, whole.parameters);
  EXPECT_EQ(adapted.trained, adapted.parameters - whole.parameters);
  EXPECT_EQ(adapted.gradients, 4.0 * static_cast<double>(adapted.trained));
  const RunSize recomputed = size_of_run(config_of("[activation_checkpoint]\nmode = \"full\"\n"));
  EXPECT_LT(recomputed.activations, whole.activations);
}

TEST(RunSize, WhatCannotFitIsRefusedByItsKeys) {
  const RunConfig large = config_of(
      "[model]\nhidden_size = 16384\nnum_hidden_layers = 60\nnum_attention_heads = 128\nvocab_size = "
      "50000\n");
  const RunSize size = size_of_run(large);
  EXPECT_GT(size.weights, 600.0 * static_cast<double>(kGiB));
  test::expect_error<ConfigError>("model.hidden_size = 16384, model.num_hidden_layers = 60: ",
                                  [&] { expect_memory(size, large, 64 * kGiB); });
  EXPECT_NO_THROW(expect_memory(size, large, 100000 * kGiB));
  const RunConfig batch = config_of("[training]\nbatch_size = 4000000000000\nseq_len = 2048\n");
  test::expect_error<ConfigError>("training.batch_size = 4000000000000",
                                  [&] { expect_memory(size_of_run(batch), batch, 64 * kGiB); });
  RunConfig absurd = config_of(
      "[model]\nhidden_size = 2147483648\nnum_attention_heads = 65536\nhead_dim = 64\n"
      "intermediate_size = 2147483648\nnum_hidden_layers = 2\n");
  EXPECT_THROW(expect_memory(size_of_run(absurd), absurd, 64 * kGiB), ConfigError);
}

// Of one optimizer step of two micro-batches a rank, by label.
Traffic traffic_of_step(const Group& world, const RunConfig& config, const ParallelDegrees& degrees) {
  constexpr int64_t kTokens = 16, kMicroBatches = 2;
  const Mesh mesh = make_mesh(world, degrees);
  Transformer model(config.model, 1);
  add_adapters(model, config.adapter, 1);
  DataParallel parallel(model, model.units(), mesh, static_cast<int>(config.parallel.zero_stage));
  model.set_unit_guard(&parallel);
  const at::Tensor tokens = at::zeros({1, kTokens}, at::kLong);
  parallel.begin_step();
  for (int64_t micro = 0; micro < kMicroBatches; ++micro) {
    parallel.begin_micro_batch(micro + 1 == kMicroBatches);
    model.loss(tokens, tokens, whole_rows(1, kTokens)).loss_sum.backward();
  }
  parallel.finish();
  parallel.squared_norm();
  parallel.publish();
  return parallel.take_traffic();
}

// What is counted from shapes is what a step sends, at every stage and on meshes of two and four ranks.
TEST(RunSize, CountsWhatAStepSends) {
  for (const ParallelDegrees& degrees :
       {ParallelDegrees{.shard = 2}, ParallelDegrees{.replicate = 2}, ParallelDegrees{.context = 2},
        ParallelDegrees{.replicate = 2, .shard = 2}})
    for (int stage = 0; stage <= 3; ++stage) {
      RunConfig config = config_of(
          "[model]\nhidden_size = 48\nnum_hidden_layers = 3\nnum_attention_heads = 4\nhead_dim = 16\n"
          "[training]\ngradient_accumulation_steps = 2\n");
      config.parallel.zero_stage = stage;
      const RunSize size = size_of_run(config, degrees);
      run_ranks(static_cast<int>(size.ranks), [&](const Group& world) {
        const Traffic sent = traffic_of_step(world, config, degrees);
        for (const char* label : {"gradients", "parameters", "norm"}) {
          const auto counted = size.sent.find(label);
          const auto moved = sent.find(label);
          EXPECT_EQ(counted == size.sent.end() ? 0 : counted->second,
                    moved == sent.end() ? 0 : static_cast<double>(moved->second.bytes))
              << label << ", stage " << stage << ", " << degrees.replicate << " x " << degrees.shard << " x "
              << degrees.context;
        }
      });
    }
}

// Bytes of a rank by the table of docs/distributed.md; 64 ranks of one process.
TEST(RunSize, SharesTheModelsStateOut) {
  RunConfig config = config_of("");
  const RunSize one = size_of_run(config);
  const ParallelDegrees degrees{.shard = 8, .context = 8};
  for (int stage = 0; stage <= 3; ++stage) {
    config.parallel.zero_stage = stage;
    const RunSize size = size_of_run(config, degrees);
    EXPECT_EQ(size.ranks, 64);
    EXPECT_DOUBLE_EQ(size.weights, stage == 3 ? one.weights / 64 : one.weights);
    EXPECT_DOUBLE_EQ(size.gradients, stage >= 2 ? one.gradients / 64 : one.gradients);
    EXPECT_DOUBLE_EQ(size.moments, stage >= 1 ? one.moments / 64 : one.moments);
    EXPECT_LT(size.activations, one.activations);
    EXPECT_GT(size.last_layer, 0);
    EXPECT_DOUBLE_EQ(size.tokens_per_step, 8 * one.tokens_per_step);
  }
}

TEST(Initialization, ShapesAloneTakeNoMemoryAndEndWithTheirScope) {
  {
    const WithoutInitialValues shapes(WithoutInitialValues::Form::shapes);
    EXPECT_TRUE(normal_parameter({int64_t{1} << 24, int64_t{1} << 24}, 1.0, 1).is_meta());
  }
  EXPECT_TRUE(normal_parameter({3}, 1.0, 1).equal(normal_parameter({3}, 1.0, 1)));
}

}  // namespace
}  // namespace longreach
