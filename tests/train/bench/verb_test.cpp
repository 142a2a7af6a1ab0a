// The verb end to end. It starts itself again to measure, so this test program answers to `bench` as
// longreach does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>

#include "core/error.h"
#include "core/exec_words.h"
#include "layers/attention/mechanisms.h"
#include "train/bench/child_process.h"
#include "train/bench/conditions.h"
#include "train/bench/layer.h"
#include "train/bench/statistics.h"
#include "train/bench/worker.h"
#include "train/program/verbs.h"

namespace longreach::bench {
namespace {

using testing::HasSubstr;

struct Answer {
  int code = 0;
  std::string output;
};

Answer run_bench(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {this_program(), "bench"});
  ChildProcess process(arguments);
  Answer answer;
  for (std::string line; process.read_line(line);) answer.output += line + "\n";
  answer.code = process.wait();
  return answer;
}

std::string refusal_of(const Arguments& arguments) {
  try {
    bench_verb(arguments);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(BenchVerb, WrongWordsAreNamed) {
  EXPECT_THAT(refusal_of({"lightening"}), HasSubstr("did you mean `lightning`?"));
  EXPECT_THAT(refusal_of({"lightning", "--peer", "sdpaa"}), HasSubstr("--peer"));
  EXPECT_THAT(refusal_of({"lightning", "--dtype", "float16"}), HasSubstr("--dtype"));
  EXPECT_THAT(refusal_of({"lightning", "--lengths", "0"}), HasSubstr("--lengths"));
  EXPECT_THAT(refusal_of({"lightning", "--kv-heads", "3"}), HasSubstr("divisors of --heads = 8"));
  EXPECT_THAT(refusal_of({"--jsn", "x"}), HasSubstr("--jsn"));
}

TEST(BenchVerb, ListsCasesAndPeers) {
  const Answer answer = run_bench({"--list"});
  EXPECT_EQ(answer.code, 0);
  for (const char* name : {"interval_attention", "sliding", "lightning", "block_attention", "sdpa_compile"}) {
    EXPECT_THAT(answer.output, HasSubstr(name));
  }
}

TEST(BenchVerb, MeasuresEveryCaseInFreshProcesses) {
  const auto path = std::filesystem::path(testing::TempDir()) / "longreach_bench.json";
  const Answer answer = run_bench({"--lengths", "64,200", "--dtype", "float32,bfloat16", "--pass",
                                   "forward,both", "--threads", "1,2", "--heads", "2", "--kv-heads", "1",
                                   "--head-dim", "32", "--rounds", "2", "--json", path.string()});
  EXPECT_EQ(answer.code, 0) << answer.output;
  EXPECT_THAT(answer.output, HasSubstr(this_machine().cpu));
  std::ifstream file(path);
  const nlohmann::json report = nlohmann::json::parse(file);
  ASSERT_EQ(report.at("rows").size(), size_t{4 * 2 * 2 * 2 * 2});
  for (const nlohmann::json& row : report.at("rows")) {
    ASSERT_FALSE(row.contains("refused")) << row;
    EXPECT_GT(row.at("seconds").get<double>(), 0) << row;
    EXPECT_GT(row.at("ratio").get<double>(), 0) << row;
    EXPECT_EQ(row.at("peer_same_function"), row.at("name") == "interval_attention");
  }
  EXPECT_GT(report.at("machine").at("peak_float32").get<double>(), 0);
  std::filesystem::remove(path);
}

TEST(BenchVerb, MeasuresALayerOfEveryKind) {
  const auto path = std::filesystem::path(testing::TempDir()) / "longreach_bench_layers.json";
  std::vector<std::string> arguments = attention_kinds();
  for (const char* layer : {"sliding_layer", "lightning_layer"}) arguments.emplace_back(layer);
  for (const char* word : {"--lengths", "80", "--pass", "both", "--heads", "2", "--kv-heads", "1",
                           "--head-dim", "32", "--rounds", "1", "--json", path.c_str()})
    arguments.emplace_back(word);
  const Answer answer = run_bench(arguments);
  EXPECT_EQ(answer.code, 0) << answer.output;
  std::ifstream file(path);
  const nlohmann::json report = nlohmann::json::parse(file);
  std::set<std::string> measured;
  for (const nlohmann::json& row : report.at("rows")) {
    ASSERT_FALSE(row.contains("refused")) << row;
    EXPECT_GT(row.at("seconds").get<double>(), 0) << row;
    EXPECT_GT(row.at("ratio").get<double>(), 0) << row;
    EXPECT_GT(row.at("relative_error").get<double>(), 0) << row;
    EXPECT_EQ(row.at("peer_same_function"), row.at("name") == "dense_layer") << row;
    measured.insert(row.at("name"));
  }
  for (const std::string& layer : layer_names()) EXPECT_EQ(measured.count(layer), 1U) << layer;
  std::filesystem::remove(path);
  EXPECT_THAT(refusal_of({"nsa", "--peer", "flex"}), HasSubstr("--peer: found flex for nsa_layer"));
  EXPECT_THAT(refusal_of({"nas"}), HasSubstr("did you mean `nsa`?"));
  EXPECT_THAT(refusal_of({"nsa", "--set", "block_siz=32"}), HasSubstr("block_size"));
  EXPECT_THAT(refusal_of({"nsa", "--set", "block_size"}), HasSubstr("expected KEY=VALUE"));
  EXPECT_THAT(refusal_of({"block_attention", "--set", "window=3"}),
              HasSubstr("--set: block_attention is an operator"));
}

TEST(BenchVerb, MeasuresTrainingSteps) {
  const auto path = std::filesystem::path(testing::TempDir()) / "longreach_bench_train.json";
  const Answer answer = run_bench({"train",
                                   "--peer",
                                   "none",
                                   "--dtype",
                                   "float32,bfloat16",
                                   "--threads",
                                   "2",
                                   "--layers",
                                   "1",
                                   "--hidden-size",
                                   "64",
                                   "--heads",
                                   "2",
                                   "--intermediate-size",
                                   "96",
                                   "--length",
                                   "64",
                                   "--batch",
                                   "2",
                                   "--rounds",
                                   "2",
                                   "--json",
                                   path.string()});
  EXPECT_EQ(answer.code, 0) << answer.output;
  std::ifstream file(path);
  const nlohmann::json report = nlohmann::json::parse(file);
  ASSERT_EQ(report.at("rows").size(), 2U);
  for (const nlohmann::json& row : report.at("rows")) {
    EXPECT_EQ(row.at("refused"), "") << row;
    EXPECT_GT(row.at("seconds_min").get<double>(), 0) << row;
    EXPECT_NEAR(row.at("loss").get<double>(), std::log(257.0), 0.5) << row;
  }
  std::filesystem::remove(path);
  EXPECT_THAT(refusal_of({"train", "--heads", "5"}), HasSubstr("--heads: found 5"));
  EXPECT_THAT(refusal_of({"train", "--peer", "sdpa"}), HasSubstr("--peer"));
}

TEST(BenchVerb, MeasuresDecodingAndPrefill) {
  const auto path = std::filesystem::path(testing::TempDir()) / "longreach_bench_decode.json";
  for (const std::string verb : {"decode", "prefill"}) {
    std::vector<std::string> arguments{verb, "--peer", "none", "--threads", "2"};
    for (const char* word :
         {"--layers", "2", "--hidden-size", "64", "--heads", "4", "--kv-heads", "2", "--intermediate-size",
          "96", "--vocab-size", "300", "--length", "40", "--rounds", "2", "--json", path.c_str()})
      arguments.emplace_back(word);
    const Answer answer = run_bench(arguments);
    EXPECT_EQ(answer.code, 0) << answer.output;
    std::ifstream file(path);
    const nlohmann::json report = nlohmann::json::parse(file);
    ASSERT_EQ(report.at("rows").size(), 2U);
    const double matrices = 300 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96), norms = 5 * 64;
    for (const nlohmann::json& row : report.at("rows")) {
      EXPECT_EQ(row.at("refused"), "") << row;
      EXPECT_GT(row.at("seconds_min").get<double>(), 0) << row;
      const bool narrow = row.at("setting").at("dtype") == "bfloat16";
      if (verb == "decode") {
        EXPECT_EQ(row.at("bytes").get<double>(), (narrow ? 2 : 4) * matrices + 4 * norms) << row;
      }
      EXPECT_GT(row.at(verb == "decode" ? "bandwidth_share" : "peak_share").get<double>(), 0) << row;
    }
    std::filesystem::remove(path);
  }
  EXPECT_THAT(refusal_of({"decode", "--heads", "5"}), HasSubstr("--heads: found 5"));
  EXPECT_THAT(refusal_of({"prefill", "--kv-heads", "2"}), HasSubstr("--kv-heads: found 2"));
  EXPECT_THAT(refusal_of({"decode", "--peer", "sdpa"}), HasSubstr("--peer"));
  EXPECT_THAT(refusal_of({"decode", "--checkpoint", "/no/such/model", "--peer", "none"}),
              HasSubstr("/no/such/model"));
}

TEST(BenchVerb, AnUnwritableReportIsAUserError) {
  EXPECT_THAT(
      refusal_of({"lightning", "--lengths", "32", "--rounds", "1", "--json", "/no/such/folder/x.json"}),
      HasSubstr("/no/such/folder/x.json: cannot be written"));
}

// Limits of the design: 1.3 (bfloat16: 1.8) times results and documented states, plus 32 MiB; linear in T.
class FusedMemory : public testing::TestWithParam<std::tuple<std::string, std::string>> {};

TEST_P(FusedMemory, StaysLinearAndWithinItsLimit) {
  std::vector<double> sizes, extras;
  for (const int64_t tokens : {2048, 8192}) {
    const MemoryFigure figure = memory_in_worker({.name = std::get<0>(GetParam()),
                                                  .tokens = tokens,
                                                  .dtype = std::get<1>(GetParam()),
                                                  .pass = "both"});
    EXPECT_TRUE(memory_within_limit(figure, std::get<1>(GetParam())))
        << "T=" << tokens << ": " << figure.extra_bytes << " bytes for results of " << figure.counted_bytes();
    EXPECT_GE(static_cast<double>(figure.extra_bytes), 0.95 * static_cast<double>(figure.result_bytes))
        << "reused memory hides the peak";
    sizes.push_back(static_cast<double>(tokens));
    extras.push_back(static_cast<double>(figure.extra_bytes));
  }
  EXPECT_LE(growth_exponent(sizes, extras), kAllowedGrowth);
}

// Dense attention, the gate's truth and its loss: nothing of size T x T, or of rows x blocks.
TEST(LayerMemory, OfDistillingAGateGrowsWithTheLength) {
  for (const char* form : {"prefill", "decode"}) {
    std::vector<double> sizes, extras;
    for (const int64_t tokens : {2048, 8192}) {
      const MemoryFigure figure = memory_in_worker({.name = "seer_layer",
                                                    .tokens = tokens,
                                                    .heads = 4,
                                                    .kv_heads = 2,
                                                    .pass = "both",
                                                    .options = {"mode=distill", text("form=", form)}});
      sizes.push_back(static_cast<double>(tokens));
      extras.push_back(static_cast<double>(figure.extra_bytes));
      EXPECT_GT(figure.extra_bytes, figure.result_bytes);
    }
    EXPECT_LE(growth_exponent(sizes, extras), kAllowedLayerGrowth) << form;
  }
}

INSTANTIATE_TEST_SUITE_P(Operators, FusedMemory,
                         testing::Combine(testing::Values("interval_attention", "sliding", "block_attention",
                                                          "lightning"),
                                          testing::Values("float32", "bfloat16")));

TEST(Memory, LimitsAreThoseOfTheDesign) {
  const int64_t results = int64_t{100} << 20;
  const auto within = [&](int64_t mebibytes, const char* dtype) {
    return memory_within_limit({.tokens = 1, .extra_bytes = mebibytes << 20, .result_bytes = results}, dtype);
  };
  EXPECT_TRUE(within(161, "float32"));
  EXPECT_FALSE(within(163, "float32"));
  EXPECT_TRUE(within(211, "bfloat16"));
  EXPECT_FALSE(within(213, "bfloat16"));
}

TEST(Machine, WarnsWhenOthersWork) {
  EXPECT_EQ(busy_warning(0.1, 1.9, 2), "");
  EXPECT_THAT(busy_warning(1.5, 1.9, 2), HasSubstr("warning"));
  EXPECT_THAT(busy_warning(0.1, 3.0, 2), HasSubstr("warning"));
}

}  // namespace
}  // namespace longreach::bench

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "bench") {
    try {
      return longreach::bench_verb({argv + 2, argv + argc});
    } catch (const longreach::Error& error) {
      std::cerr << error.what() << "\n";
      return 2;
    }
  }
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
