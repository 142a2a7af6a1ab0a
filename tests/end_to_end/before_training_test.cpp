// What the program says of a run before it trains, and what it refuses there: nothing is written.
#include <gtest/gtest.h>

#include <filesystem>

#include "core/config.h"
#include "tests/support/program.h"
#include "tests/support/tiny_run.h"
#include "train/run_config.h"

namespace longreach::test {
namespace {

class BeforeTraining : public testing::Test {
 protected:
  ProgramResult train(std::vector<std::string> words) const {
    words.insert(words.begin(), {"train", config_});
    const ProgramResult result = run_program(words);
    EXPECT_FALSE(std::filesystem::exists(folder_.path("run"))) << "something was written";
    return result;
  }
  TemporaryFolder folder_;
  std::string config_ = write_tiny_run(folder_);
};

TEST_F(BeforeTraining, PrintsTheConfigThatResults) {
  const ProgramResult printed = train({"--training.steps", "77", "--print-config"});
  ASSERT_EQ(printed.code, 0) << printed.err;
  RunConfig config = parse_run_config(printed.out, "printed");
  EXPECT_EQ(config.training.steps, 77);
  EXPECT_EQ(config.model.vocab_size, 257);
  EXPECT_EQ(config.model.head_dim, 8);
  EXPECT_EQ(to_toml(fields_of(config)), printed.out);
  const std::string again = folder_.write("again.toml", printed.out);
  EXPECT_EQ(run_program({"train", "--print-config", again}).out, printed.out);
  EXPECT_EQ(train({"--print-config", "--dry-run"}).code, 2);
  EXPECT_EQ(train({"--print-config", "--training.stepz", "1"}).code, 2);
}

TEST_F(BeforeTraining, SaysWhatTheRunCosts) {
  const ProgramResult dry = train({"--dry-run"});
  ASSERT_EQ(dry.code, 0) << dry.err;
  for (const char* part :
       {" parameters, ", "FLOPs a token, ", "FLOPs a step", "weights ", "gradients ", "moments ",
        "activations about ", "4 rows x 64 tokens x 2 micro-batches = 512 tokens"})
    EXPECT_NE(dry.out.find(part), std::string::npos) << part << "\n" << dry.out;
}

// Any mesh from one process; rows of the run's own text, and nothing is written.
TEST_F(BeforeTraining, SaysWhatARankOfAMeshCosts) {
  const ProgramResult dry = train({"--dry-run", "--world-size", "64", "--parallel.context_parallel_degree",
                                   "8", "--parallel.zero_stage", "2"});
  ASSERT_EQ(dry.code, 0) << dry.err;
  for (const char* part :
       {"of a rank: weights ", "sent       gradients ", "sent       parameters ", "sent       norm ",
        "a rank and step", "the dearest of 8 ranks", "ptrr ", "headtail ", "none ", "this run: ptrr",
        "sent       keys ", " bytes by rank 0 in step 1", " by the rank that sends most"})
    EXPECT_NE(dry.out.find(part), std::string::npos) << part << "\n" << dry.out;
  EXPECT_FALSE(std::filesystem::exists(folder_.path("run")));
  EXPECT_EQ(train({"--dry-run", "--world-size", "63", "--parallel.context_parallel_degree", "8"}).code, 2);
  EXPECT_EQ(train({"--dry-run", "--world-size", "0"}).code, 2);
  EXPECT_EQ(train({"--dry-run", "--world-size"}).code, 2);
  EXPECT_EQ(train({"--world-size", "2"}).code, 2);
  // Without a number of ranks: as many as the degrees need.
  const ProgramResult least = train({"--dry-run", "--parallel.context_parallel_degree", "4"});
  EXPECT_EQ(least.code, 0) << least.err;
  EXPECT_NE(least.out.find("the dearest of 4 ranks"), std::string::npos) << least.out;
}

// A model of 3.6 billion parameters over 64 ranks, with less than 1 GiB of memory of its own (in KiB).
TEST_F(BeforeTraining, PlansALargeMeshInLittleMemory) {
  const ProgramResult dry = run_command({"bash",
                                         "-c",
                                         "ulimit -d 1048576; exec \"$0\" \"$@\"",
                                         LONGREACH_PROGRAM,
                                         "train",
                                         config_,
                                         "--dry-run",
                                         "--world-size",
                                         "64",
                                         "--parallel.context_parallel_degree",
                                         "16",
                                         "--parallel.zero_stage",
                                         "3",
                                         "--model.hidden_size",
                                         "8192",
                                         "--model.num_attention_heads",
                                         "64",
                                         "--model.num_key_value_heads",
                                         "8",
                                         "--model.head_dim",
                                         "128",
                                         "--model.intermediate_size",
                                         "28672",
                                         "--model.vocab_size",
                                         "128256"});
  ASSERT_EQ(dry.code, 0) << dry.err;
  EXPECT_NE(dry.out.find("the dearest of 16 ranks"), std::string::npos) << dry.out;
}

TEST_F(BeforeTraining, SizesThatCannotFitAreRefused) {
  const std::vector<std::string> sizes = {
      "--model.hidden_size",         "16384",     "--model.num_hidden_layers",   "3000",
      "--model.attention.0.layers",  "0-997",     "--model.attention.1.layers",  "998-1998",
      "--model.attention.2.layers",  "1999-2999", "--model.num_attention_heads", "128",
      "--model.num_key_value_heads", "8"};
  std::vector<std::string> dry = sizes;
  dry.emplace_back("--dry-run");
  for (const auto& words : {sizes, dry}) {
    const ProgramResult refused = train(words);
    EXPECT_EQ(refused.code, 2) << refused.err;
    EXPECT_NE(refused.err.find("model.hidden_size = 16384"), std::string::npos) << refused.err;
    EXPECT_EQ(refused.out.find("memory     weights") != std::string::npos, words.back() == "--dry-run");
  }
}

}  // namespace
}  // namespace longreach::test
