// The peers in Python against the formula, where `longreach bench --install-peers` has been run.
#include "train/bench/python_peer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/train/bench/cases.h"
#include "train/bench/agreement.h"
#include "train/bench/decoding.h"
#include "train/bench/peer_process.h"
#include "train/bench/training.h"

namespace longreach::bench {
namespace {

class PythonPeers : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(peers_environment() + "/bin/python")) {
      GTEST_SKIP() << "no environment in " << peers_environment()
                   << "; run `longreach bench --install-peers`";
    }
  }
};

Setting setting_for(const std::string& peer, const std::string& pass) {
  Setting setting = test::small_setting(pass);
  setting.peer = peer;
  return setting;
}

TEST_F(PythonPeers, EagerAttentionEqualsTheFormula) {
  for (const std::string pass : {"forward", "both"}) {
    Setting setting = setting_for("sdpa_eager", pass);
    setting.kv_heads = 1;
    const Problem problem = make_problem(setting);
    const auto peer = python_peer(test::formula_case(), setting, problem);
    EXPECT_TRUE(peer->same_function());
    const Result result = peer->result();
    EXPECT_LT(require_reference("sdpa_eager", result, problem, test::causal_attention, setting.backward()),
              5e-6);
    const Timing timing = peer->run(3);
    EXPECT_GT(timing.wall, 0);
    EXPECT_GT(timing.cpu, 0);
  }
}

TEST_F(PythonPeers, SayWhatTheyCannotDo) {
  const Setting backward = setting_for("flex", "both");
  try {
    python_peer(interval_attention_case(), backward, make_problem(backward));
    FAIL() << "flex has no backward";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("peer flex: Unsupported: FlexAttention has no backward"));
  }
}

TEST_F(PythonPeers, DenseAttentionInPlaceOfAnotherFunctionSaysSo) {
  const Setting setting = setting_for("sdpa_eager", "forward");
  EXPECT_FALSE(python_peer(lightning_case(), setting, make_problem(setting))->same_function());
}

// The same weights, tokens and optimizer give the same losses; measure_training refuses to time anything
// else.
TEST_F(PythonPeers, TrainTheSameModel) {
  for (const char* dtype : {"float32", "bfloat16"}) {
    const TrainingSetting setting{.dtype = dtype,
                                  .rounds = 1,
                                  .layers = 2,
                                  .hidden_size = 64,
                                  .heads = 2,
                                  .intermediate_size = 96,
                                  .vocab_size = 97,
                                  .tokens = 48,
                                  .batch = 2};
    const TrainingRow row = measure_training(setting, {.float32 = 1e13, .bfloat16 = 1e13});
    EXPECT_EQ(row.refused, "") << dtype;
    EXPECT_NEAR(row.loss, row.peer_loss, 1e-2 * row.loss) << dtype;
    EXPECT_GT(row.ratio, 0) << dtype;
  }
}

// The same weights and tokens give the same logits; measure_decoding refuses to time anything else.
TEST_F(PythonPeers, DecodeTheSameModel) {
  for (const bool prefill : {false, true})
    for (const char* dtype : {"float32", "bfloat16"}) {
      const DecodingSetting setting{.dtype = dtype,
                                    .prefill = prefill,
                                    .rounds = 1,
                                    .tokens = 20,
                                    .steps = 6,
                                    .layers = 2,
                                    .hidden_size = 64,
                                    .heads = 4,
                                    .kv_heads = 2,
                                    .intermediate_size = 96,
                                    .vocab_size = 97};
      const DecodingRow row = measure_decoding(setting, {.float32 = 1e13, .bfloat16 = 1e13});
      EXPECT_EQ(row.refused, "") << dtype;
      EXPECT_GT(row.difference, 0) << dtype;
      EXPECT_GT(row.ratio, 0) << dtype;
    }
}

}  // namespace
}  // namespace longreach::bench
