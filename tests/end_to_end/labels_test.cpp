// Text without anything to learn: a run, a step, held-out text.
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/support/program.h"
#include "tests/support/run_folders.h"
#include "tests/support/tiny_run.h"

namespace longreach::test {
namespace {

using Words = std::vector<std::string>;

class Labels : public testing::Test {
 protected:
  ProgramResult run(const std::string& lines, const Words& more = {}) {
    folder_.write("data.jsonl", lines);
    Words words{"--data.train",
                "['" + folder_.path("data.jsonl") + "']",
                "--training.gradient_accumulation_steps",
                "1",
                "--training.batch_size",
                "1",
                "--metrics.log_freq",
                "1"};
    words.insert(words.end(), more.begin(), more.end());
    return train(write_tiny_run(folder_), words);
  }
  static std::string pairs(int count, const std::string& prompt, const std::string& completion) {
    std::string lines;
    for (int i = 0; i < count; ++i)
      lines += text("{\"prompt\": \"", i, prompt, "\", \"completion\": \"", completion, "\"}\n");
    return lines;
  }
  TemporaryFolder folder_;
};

TEST_F(Labels, ARunWithoutASingleOneIsRefusedBeforeItBegins) {
  std::string lines;
  for (int i = 0; i < 50; ++i)
    lines += text(R"({"messages": [{"role": "user", "content": "What is )", i, R"(?"}]})", "\n");
  const ProgramResult result = run(lines);
  EXPECT_EQ(result.code, 2) << result.out;
  for (const char* word : {"data.jsonl", "label", "`assistant`", "`user`"})
    EXPECT_NE(result.err.find(word), std::string::npos) << result.err;
  EXPECT_EQ(result.out.find("step"), std::string::npos) << result.out;
}

// Rows of 64 tokens, prompts of about 200: three rows in four hold no answer.
TEST_F(Labels, AStepWithoutThemChangesNothingAndIsNoPointOfTheCurve) {
  const ProgramResult result = run(pairs(60, std::string(200, 'p'), "an answer"),
                                   {"--checkpoint.interval", "1", "--validation.final", "true"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.err.find("carries a label"), std::string::npos) << result.err;
  EXPECT_NE(result.out.find("of 12 steps had no label"), std::string::npos) << result.out;
  EXPECT_EQ(result.out.find("nan"), std::string::npos) << result.out;
  EXPECT_EQ(result.out.find("loss 0.0000"), std::string::npos) << result.out;
  int64_t without = 0, with = 0;
  for (const MetricsLine& line : read_metrics(folder_.path("run"))) {
    const auto step = static_cast<int64_t>(line.at("step"));
    if (line.count("loss")) {
      EXPECT_GT(line.at("loss"), 0) << step;
      ++with;
      continue;
    }
    EXPECT_EQ(line.count("grad_norm"), 0u);
    ++without;
    if (step == 1) continue;
    for (const char* shard : {"/model-00000.safetensors", "/optimizer-00000.safetensors"})
      EXPECT_EQ(read_text(step_folder(folder_, "run", step) + shard),
                read_text(step_folder(folder_, "run", step - 1) + shard))
          << step << shard;
  }
  EXPECT_GT(without, 2);
  EXPECT_GT(with, 0);
}

// One row is read of a document whose answer lies rows later.
TEST_F(Labels, HeldOutRowsWithoutThemAreNotMeasured) {
  folder_.write("valid.jsonl", pairs(1, std::string(300, 'p'), "an answer"));
  const ProgramResult result =
      run(pairs(60, "short", "an answer"), {"--data.valid", "['" + folder_.path("valid.jsonl") + "']",
                                            "--validation.freq", "6", "--validation.rows", "1"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out.find("nan"), std::string::npos) << result.out;
  EXPECT_NE(result.err.find("no token of the held-out rows carries a label"), std::string::npos)
      << result.err;
  const ProgramResult eval = run_program({"eval", folder_.path("run"), "--rows", "1"});
  EXPECT_EQ(eval.code, 2) << eval.out;
  EXPECT_NE(eval.err.find("carries a label"), std::string::npos) << eval.err;
  EXPECT_EQ(eval.out.find("nan"), std::string::npos) << eval.out;
}

}  // namespace
}  // namespace longreach::test
