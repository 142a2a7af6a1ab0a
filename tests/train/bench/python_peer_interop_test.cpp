// The peers in Python against the formula, where `longreach bench --install-peers` has been run.
#include "train/bench/python_peer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/train/bench/cases.h"
#include "train/bench/agreement.h"

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

}  // namespace
}  // namespace longreach::bench
