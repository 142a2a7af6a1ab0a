// The authors' names of a gate's options, there and back.
#include <gtest/gtest.h>

#include "core/error.h"
#include "layers/attention/mechanisms.h"
#include "tests/support/errors.h"

namespace longreach {
namespace {

const LayerSite kSite{.num_heads = 4, .num_kv_heads = 2, .head_dim = 64};

void expect_back(const SeerConfig& config) {
  const std::string written = config.gate_config(kSite);
  const AttentionConfig back = attention_of_gates(SeerConfig::gate.file, written);
  EXPECT_EQ(std::get<SeerConfig>(back).gate_config(kSite), written);
  EXPECT_EQ(std::get<SeerConfig>(back).form, config.form);
  EXPECT_EQ(std::get<SeerConfig>(back).mode, "sparse");
}

TEST(SeerNames, ComeBack) {
  expect_back({});
  SeerConfig decode;
  decode.block_size = 32;
  decode.gate_hidden = 64;
  decode.q_pooling = "Qavgproj";
  decode.k_pooling = "Kavg";
  decode.gate_qk_norm = decode.gate_rope = false;
  decode.token_budget = 1024;
  expect_back(decode);
  SeerConfig prefill;
  prefill.form = "prefill";
  expect_back(prefill);
  prefill.q_pooling = "Qmaxavg";
  prefill.layout = "double";
  prefill.last_block_dense = false;
  prefill.selection = "density";
  prefill.density = 0.3;
  expect_back(prefill);
  prefill.selection = "threshold";
  prefill.threshold = 0.002;
  expect_back(prefill);
}

TEST(SeerNames, AreRefusedWhereTheySayNothing) {
  const auto refused = [](const std::string& options, const std::string& said) {
    test::expect_error<ConfigError>(said, [&] { attention_of_gates(SeerConfig::gate.file, options); });
  };
  refused("[]", "config.json: expected a JSON object");
  refused("{}", "expected seerattn_q_head_pooling_type (decode form) or seerattn_gate_type");
  refused(R"({"seerattn_gate_type": "Qavg"})", "seerattn_gate_type: expected a name such as Qavg_Kmaxminavg");
  refused(R"({"seerattn_gate_type": "Qavg_Kavg", "seerattn_nz_ratio": "a"})",
          "expected a number, found \"a\"");
  test::expect_error<ConfigError>("other.pth: no kind of attention",
                                  [] { attention_of_gates("other.pth", "{}"); });
}

}  // namespace
}  // namespace longreach
