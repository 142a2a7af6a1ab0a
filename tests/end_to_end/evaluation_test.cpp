// Looking at held-out text while a run trains leaves the run as it is.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/run_folders.h"
#include "tests/support/tiny_run.h"

namespace longreach::test {
namespace {

// Layers that do something else in evaluation than in training: a gate that learns, dropout of adapters.
std::string config_with_modes(const TemporaryFolder& folder) {
  std::string toml = read_text(write_tiny_run(folder));
  const std::string dense = "kind = \"dense\"\n";
  toml.replace(toml.find(dense), dense.size(),
               "kind = \"seer\"\nblock_size = 16\ngate_hidden = 8\ntoken_budget = 32\n");
  return folder.write("modes.toml",
                      toml +
                          "[adapter]\ntype = \"lora\"\nr = 4\nlora_alpha = 8\nlora_dropout = 0.2\n"
                          "target_modules = [\"q_proj\", \"o_proj\"]\n"
                          "modules_to_save = [\"embed_tokens\", \"norm\", \"attn_gate\"]\n");
}

TEST(Evaluation, TrainingHasTheSameBitsWithAndWithoutIt) {
  const TemporaryFolder folder;
  for (const std::string& config : {write_tiny_run(folder), config_with_modes(folder)}) {
    const auto run = [&](const std::string& name, const std::string& every) {
      const ProgramResult result =
          train(config, {"--job.dump_folder", folder.path(name), "--validation.freq", every,
                         "--validation.rows", "3", "--training.steps", "6", "--checkpoint.interval", "6"});
      ASSERT_EQ(result.code, 0) << result.err;
    };
    run("with", "1");
    run("without", "0");
    const auto with = read_metrics(folder.path("with")), without = read_metrics(folder.path("without"));
    ASSERT_EQ(with.size(), 6u);
    ASSERT_EQ(without.size(), 6u);
    for (size_t i = 0; i < with.size(); ++i) {
      EXPECT_TRUE(with[i].count("valid_loss"));
      EXPECT_FALSE(without[i].count("valid_loss"));
      for (const char* name : {"loss", "grad_norm"}) EXPECT_EQ(with[i].at(name), without[i].at(name)) << name;
    }
    for (const char* shard : {"/model-00000.safetensors", "/optimizer-00000.safetensors"})
      EXPECT_EQ(read_text(step_folder(folder, "with", 6) + shard),
                read_text(step_folder(folder, "without", 6) + shard))
          << config << shard;
    std::filesystem::remove_all(folder.path("with"));
    std::filesystem::remove_all(folder.path("without"));
  }
}

}  // namespace
}  // namespace longreach::test
