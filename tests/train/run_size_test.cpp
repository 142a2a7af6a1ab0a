// What a run costs is counted from its config, and what cannot fit is refused before it is made.
#include "train/run_size.h"

#include <gtest/gtest.h>

#include "core/error.h"
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

TEST(Initialization, ShapesAloneTakeNoMemoryAndEndWithTheirScope) {
  {
    const WithoutInitialValues shapes(WithoutInitialValues::Form::shapes);
    EXPECT_TRUE(normal_parameter({int64_t{1} << 24, int64_t{1} << 24}, 1.0, 1).is_meta());
  }
  EXPECT_TRUE(normal_parameter({3}, 1.0, 1).equal(normal_parameter({3}, 1.0, 1)));
}

}  // namespace
}  // namespace longreach
