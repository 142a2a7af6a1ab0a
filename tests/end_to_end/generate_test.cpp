// `generate` as a user meets it: what it costs, what it refuses, and text that no tokenizer rule distorts.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <filesystem>

#include "checkpoints/checkpoint.h"
#include "core/config.h"
#include "tests/support/program.h"
#include "tests/support/tiny_run.h"
#include "train/saved_model.h"

namespace longreach::test {
namespace {

constexpr int64_t kMegabyte = 1 << 20;

// A run folder with a model of some 50 million parameters, nearly all of them in the embedding, and moments.
void write_large_run(const TemporaryFolder& folder) {
  RunConfig config;
  config.data.train = {"x.txt"};
  config.model.vocab_size = 98304;
  config.model.hidden_size = 512;
  config.model.num_hidden_layers = 2;
  config.resolve_model(257, "run.toml");
  Transformer model(config.model, 1);
  const NamedTensors tensors = model_tensors(model);
  std::filesystem::create_directory(folder.path("run"));
  save_checkpoint(folder.path("run/checkpoint"), {.step = 1,
                                                  .model = tensors,
                                                  .optimizer = tensors,
                                                  .texts = {{"config.toml", to_toml(fields_of(config))}}});
}

TEST(GenerateVerb, HoldsTheWeightsOnce) {
  const TemporaryFolder folder;
  write_large_run(folder);
  const auto weights = static_cast<int64_t>(
      std::filesystem::file_size(folder.path("run/checkpoint/step-00000001/model-00000.safetensors")));
  ASSERT_GT(weights, 200 * kMegabyte);
  const RunningProgram program =
      start_program({"generate", folder.path("run"), "--prompt", "the ", "--max-new-tokens", "2"}, folder);
  struct rusage usage {};
  int status = 0;
  ASSERT_EQ(wait4(program.pid, &status, 0, &usage), program.pid);
  ASSERT_EQ(status, 0) << read_text(program.err_file);
  const int64_t peak = int64_t{usage.ru_maxrss} * 1024;
  EXPECT_LE(peak, weights + weights / 10 + 200 * kMegabyte) << peak / kMegabyte << " MiB";
}

TEST(GenerateVerb, DrawsNothingBeyondTheTokenizer) {
  const TemporaryFolder folder;
  const std::string config = write_tiny_run(folder);
  const ProgramResult trained = run_program(
      {"train", config, "--training.steps", "2", "--model.vocab_size", "700", "--sample.tokens", "60"});
  ASSERT_EQ(trained.code, 0) << trained.err;
  EXPECT_NE(trained.out.find("sample     ---"), std::string::npos) << trained.out;
  const ProgramResult spoken = run_program(
      {"generate", folder.path("run"), "--prompt", "the ", "--max-new-tokens", "60", "--temperature", "5"});
  EXPECT_EQ(spoken.code, 0) << spoken.err;
}

TEST(GenerateVerb, StopTextsAreTakenAndEmptyOnesRefused) {
  const TemporaryFolder folder;
  ASSERT_EQ(run_program({"train", write_tiny_run(folder), "--training.steps", "2"}).code, 0);
  std::vector<std::string> words = {"generate", folder.path("run"), "--prompt", "the sea", "--temperature",
                                    "0",        "--max-new-tokens", "8"};
  const std::string whole = run_program(words).out;
  ASSERT_GT(whole.size(), 9u);
  const std::string stop = whole.substr(9, 1);
  words.insert(words.begin() + 1, {"--stop", "\x01", "--stop", stop});
  const ProgramResult stopped = run_program(words);
  EXPECT_EQ(stopped.code, 0) << stopped.err;
  EXPECT_EQ(stopped.out, "the sea" + whole.substr(7, whole.find(stop, 7) - 7) + "\n");
  words[4] = "";
  const ProgramResult refused = run_program(words);
  EXPECT_EQ(refused.code, 2);
  EXPECT_NE(refused.err.find("--stop"), std::string::npos) << refused.err;
}

}  // namespace
}  // namespace longreach::test
