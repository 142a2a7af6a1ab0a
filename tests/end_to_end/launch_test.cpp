// Several ranks train what one rank trains of as many micro-batches: the same losses, the same bits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/end_to_end/launch_fixture.h"

namespace longreach::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

TEST_F(Launch, RanksTrainWhatAccumulationTrains) {
  struct Case {
    int ranks;
    const char *stage, *replicate;
  };
  for (const auto& [ranks, stage, replicate] :
       {Case{2, "3", "1"}, {3, "2", "1"}, {4, "1", "1"}, {4, "3", "2"}}) {
    SCOPED_TRACE(ranks);
    const Words steps = {"--training.steps", "6", "--validation.freq", "3"};
    const std::string several = "ranks-" + std::to_string(ranks) + "-" + stage, alone = several + "-alone";
    Words one = steps, each = steps;
    for (const std::string& word :
         {std::string("--training.gradient_accumulation_steps"), std::to_string(ranks)})
      one.push_back(word);
    each.insert(each.end(), {"--training.gradient_accumulation_steps", "1", "--parallel.zero_stage", stage,
                             "--parallel.data_parallel_replicate_degree", replicate});
    const ProgramResult result = train(ranks, several, each);
    ASSERT_EQ(result.code, 0) << result.err;
    ASSERT_EQ(train(1, alone, one).code, 0);
    expect_same_run(several, alone);
    EXPECT_EQ(lines_with(result.out, "6/6"), 1u) << result.out;
    EXPECT_THAT(result.out, HasSubstr("1 thread each"));
    EXPECT_TRUE(fs::exists(folder_.path(several + "/ranks/rank-1.log")));
    EXPECT_FALSE(fs::exists(folder_.path(several + "/ranks/rank-0.log")));
    const auto held_out = [&](const std::string& run) {
      return read_metrics(folder_.path(run))[2].at("valid_loss");
    };
    EXPECT_NEAR(held_out(several), held_out(alone), 1e-6 * held_out(alone));
  }
}

TEST_F(Launch, TheNumberOfRanksChangesNoSample) {
  const Words rows = {"--training.gradient_accumulation_steps", "1", "--training.batch_size", "2",
                      "--training.global_batch_size",           "8", "--training.steps",      "3"};
  for (const int ranks : {1, 2, 4}) ASSERT_EQ(train(ranks, "run-" + std::to_string(ranks), rows).code, 0);
  const auto one = read_metrics(folder_.path("run-1"));
  for (const char* run : {"run-2", "run-4"}) {
    const auto other = read_metrics(folder_.path(run));
    for (size_t step = 0; step < one.size(); ++step) {
      EXPECT_EQ(other[step].at("tokens"), one[step].at("tokens"));
      EXPECT_NEAR(other[step].at("loss"), one[step].at("loss"), 1e-5);
    }
  }
  expect_same_run("run-1", "run-4");  // one micro-batch a rank
}

TEST_F(Launch, GoesOnFromWhereItStopped) {
  const auto train_at = [&](const char* zero_stage, const std::string& run, const char* stop_at) {
    return train(2, run,
                 {"--training.gradient_accumulation_steps", "1", "--parallel.zero_stage", zero_stage,
                  "--training.stop_at", stop_at});
  };
  ASSERT_EQ(train_at("1", "whole", "0").code, 0);
  ASSERT_EQ(train_at("3", "parts", "5").code, 0);
  const ProgramResult rest = train_at("0", "parts", "0");
  ASSERT_EQ(rest.code, 0) << rest.err;
  EXPECT_THAT(rest.out, HasSubstr("after step 5"));
  expect_same_run("whole", "parts");
  ASSERT_EQ(train(1, "parts", {"--training.steps", "13"}).code, 0);  // one rank goes on from two
}

TEST_F(Launch, WhatRanksHaveSavedIsEvaluatedGeneratedAndExported) {
  ASSERT_EQ(
      train(3, "run", {"--training.steps", "2", "--parallel.zero_stage", "3", "--adapter.type", "lora"}).code,
      0);
  ASSERT_TRUE(fs::exists(newest_checkpoint("run") + "/model-00002.safetensors"));
  const std::string run = folder_.path("run"), exported = folder_.path("exported");
  for (const Words& verb : {Words{"eval", run},
                            {"generate", run, "--prompt", "the ", "--max-new-tokens", "4"},
                            {"export", run, exported, "--format", "merged"}}) {
    const ProgramResult result = run_program(verb);
    EXPECT_EQ(result.code, 0) << verb[0] << ": " << result.err;
  }
  EXPECT_FALSE(fs::is_empty(exported));
}

// Ranks that have rows of their own, and ranks that share them; the figure after the last step too.
TEST_F(Launch, RanksEvaluateAsOneDoes) {
  ASSERT_EQ(train(4, "run",
                  {"--training.steps", "4", "--training.gradient_accumulation_steps", "1",
                   "--parallel.context_parallel_degree", "2", "--validation.final", "true"})
                .code,
            0);
  const auto evaluated = [&](int ranks, const Words& options = {}) {
    Words words = {"eval", folder_.path("run"), "--json", folder_.path("eval.json")};
    words.insert(words.end(), options.begin(), options.end());
    if (ranks > 1) words.insert(words.begin(), {"launch", "-n", std::to_string(ranks)});
    const ProgramResult result = run_program(words);
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(lines_with(result.out, "bits per byte"), 1u) << result.out;
    return nlohmann::json::parse(read_text(folder_.path("eval.json")));
  };
  const auto one = evaluated(1);
  EXPECT_NEAR(read_metrics(folder_.path("run")).back().at("valid_loss"), one.at("nll").get<double>(), 1e-6);
  for (const auto& several : {evaluated(3), evaluated(2, {"--context-parallel-degree", "2"}),
                              evaluated(4, {"--context-parallel-degree", "2", "--batch-size", "3"})}) {
    EXPECT_NEAR(several.at("nll"), one.at("nll").get<double>(), 1e-6);
    ASSERT_EQ(several.at("positions").size(), one.at("positions").size());
    for (size_t i = 0; i < one.at("positions").size(); ++i) {
      EXPECT_EQ(several["positions"][i]["tokens"], one["positions"][i]["tokens"]);
      EXPECT_NEAR(several["positions"][i]["nll"], one["positions"][i]["nll"].get<double>(), 1e-6);
    }
  }
}

TEST_F(Launch, MetricsHoldWhatRanksExchanged) {
  ASSERT_EQ(train(2, "run", {"--training.steps", "2", "--comm.check", "true"}).code, 0);
  const MetricsLine line = read_metrics(folder_.path("run")).back();
  EXPECT_GT(line.at("comm_bytes"), 0);
  EXPECT_GE(line.at("comm_seconds"), line.at("comm_seconds.gradients"));
  EXPECT_GT(line.at("comm_bytes.gradients"), line.at("comm_bytes.step"));
  EXPECT_EQ(line.at("tokens"), 2 * 2 * 2 * 4 * 64);  // steps, ranks, micro-batches, rows, tokens
}

TEST_F(Launch, OneCheckpointWhenARankIsAskedToStop) {
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
    SCOPED_TRACE(signal);
    const std::string run = "run-" + std::to_string(signal);
    const RunningProgram program = start_program(words(2, run, {"--training.steps", "100000"}), folder_);
    wait_for_step(run, 3);
    ::kill(program.pid, signal);
    const ProgramResult result = wait_program(program);
    EXPECT_EQ(result.code, 128 + signal) << result.err;
    EXPECT_THAT(result.out, HasSubstr("interrupted after step"));
    const auto steps = losses(folder_.path(run));
    const ProgramResult rest = train(
        2, run,
        {"--training.steps", "100000", "--training.stop_at", std::to_string(steps.rbegin()->first + 1)});
    EXPECT_EQ(rest.code, 0);
    EXPECT_THAT(rest.out, HasSubstr("after step " + std::to_string(steps.rbegin()->first)));
  }
}

TEST_F(Launch, ANumberThatIsNoneOfOneRankIsNoneOfAll) {
  // Overflows at once: the first step's parameters are refused on both ranks.
  const ProgramResult result = train(2, "run", {"--optimizer.lr", "1e38", "--training.nonfinite", "skip"});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("in a row (training.max_bad_steps = 5)"));
}

TEST_F(Launch, SaysWhatDoesNotFit) {
  const auto expect = [&](int ranks, const Words& overrides, const std::string& part) {
    const ProgramResult result = train(ranks, "bad", overrides);
    EXPECT_EQ(result.code, 2) << part;
    EXPECT_THAT(result.err, HasSubstr(part));
    EXPECT_EQ(lines_with(result.err, ""), 1u) << result.err;
    EXPECT_FALSE(fs::exists(folder_.path("bad"))) << part;
  };
  expect(2, {"--parallel.data_parallel_shard_degree", "3"}, "1 x 3 x 1, expected a product of 2");
  expect(1, {"--parallel.data_parallel_replicate_degree", "2", "--parallel.data_parallel_shard_degree", "1"},
         "2 x 1 x 1, expected a product of 1");
  expect(2, {"--parallel.data_parallel_replicate_degree", "-1"}, "at most one of them may be -1");
  expect(2, {"--parallel.context_parallel_degree", "3"}, "x 3, expected a product of 2");
  expect(2, {"--training.global_batch_size", "12", "--training.gradient_accumulation_steps", "1"},
         "expected a multiple of training.batch_size x data ranks = 4 x 2");
  expect(1, {"--training.global_batch_size", "16", "--training.gradient_accumulation_steps", "3"},
         "contradicts");
}

}  // namespace
}  // namespace longreach::test
