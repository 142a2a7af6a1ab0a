// An estimate is what is counted over what is assumed.
#include "train/bench/estimate.h"

#include <gtest/gtest.h>

#include "train/run_size.h"

namespace longreach::bench {
namespace {

RunConfig config_of(const std::string& options = "") {
  RunConfig config =
      parse_run_config("[data]\ntrain = [\"x.txt\"]\n[training]\nseq_len = 2048\n" + options, "run.toml");
  config.resolve_model(257, "run.toml");
  return config;
}

TEST(Estimate, IsIdealWhereExchangesTakeNoTime) {
  const RunConfig config = config_of();
  for (const int64_t ranks : {1, 8, 1024}) {
    const Estimate estimate = estimate_step(config, {.shard = ranks}, {.tflops = 1, .gigabytes = 1e12});
    EXPECT_EQ(estimate.ranks, ranks);
    EXPECT_NEAR(estimate.ratio, static_cast<double>(ranks), 1e-3 * static_cast<double>(ranks));
    EXPECT_GT(estimate.memory, 0);
  }
}

TEST(Estimate, WaitsForWhatIsCounted) {
  const RunConfig config = config_of();
  const ParallelDegrees degrees{.shard = 4};
  const RunSize size = size_of_run(config, degrees);
  const AssumedDevice slow{.tflops = 1e6, .gigabytes = 1e-3};
  const Estimate estimate = estimate_step(config, degrees, slow);
  const double operations = size.flops_per_token * size.tokens_per_step / 4;
  EXPECT_DOUBLE_EQ(estimate.compute_seconds, operations / 1e18);
  double sent = 0;
  for (const auto& [label, bytes] : size.sent) sent += bytes;
  EXPECT_NEAR(estimate.state_seconds, sent / 1e6 - operations / 1e18 * 2 / 3, 1e-9 * estimate.state_seconds);
  EXPECT_EQ(estimate.shared_row_seconds, 0);
  EXPECT_DOUBLE_EQ(estimate.tokens_per_second, size.tokens_per_step / estimate.seconds);
}

// One document of dense attention over two ranks, contiguous: keys and values of a half go over twice and
// the gradients of a half come back; a micro-batch a layer.
TEST(Estimate, CountsSharedRows) {
  const RunConfig config =
      config_of("batch_size = 1\n[parallel]\ncontext_parallel_load_balancer = \"none\"\n");
  const AssumedDevice device{.tflops = 1, .gigabytes = 1};
  const Estimate two = estimate_step(config, {.context = 2}, device), one = estimate_step(config, {}, device);
  const ModelConfig& model = config.model;
  const double half = 1024.0 * 2 * static_cast<double>(model.num_key_value_heads * model.head_dim) * 4;
  EXPECT_DOUBLE_EQ(two.shared_row_seconds, 2 * half * static_cast<double>(model.num_hidden_layers) / 1e9);
  EXPECT_GT(two.compute_seconds, one.compute_seconds / 2) << "the second half is dearer";
  EXPECT_LT(two.compute_seconds, one.compute_seconds);
  EXPECT_EQ(one.shared_row_seconds, 0);
}

}  // namespace
}  // namespace longreach::bench
