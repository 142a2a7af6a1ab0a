// Checkpoints of ours written anew: what goes into them, what stays behind, and what is refused.
#include "train/native_export.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/temporary_folder.h"
#include "tests/support/errors.h"
#include "tests/support/files.h"
#include "tests/support/saved_model.h"
#include "tests/support/small_model.h"
#include "train/export.h"
#include "train/import.h"
#include "train/probe_logits.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;

RunConfig adapted() {
  RunConfig config;
  config.model = test::small_model();
  config.adapter.type = "lora";
  config.adapter.modules_to_save = {"norm"};
  config.exports.format = {"peft"};
  return config;
}

class ExportNative : public testing::Test {
 protected:
  // Checkpoints of a run, with what only a run goes on from.
  std::string save(const RunConfig& config, const std::vector<int64_t>& steps) const {
    const std::string first = test::save_untrained(config, folder_.path("first"));
    CheckpointContents contents = load_checkpoint(first);
    for (const int64_t step : steps) {
      contents.step = step;
      contents.optimizer = {{"moments", at::ones({3})}};
      contents.texts["state.json"] = R"({"step": 7, "tokens": 90, "tokenizer": "another"})";
      const at::NoGradGuard no_grad;
      for (auto& [name, tensor] : contents.model) tensor.mul_(1.25);
      save_checkpoint(folder_.path("run"), contents);
    }
    return folder_.path("run");
  }
  void expect_no_new_folder() const { EXPECT_FALSE(fs::exists(folder_.path("new"))); }

  const TemporaryFolder folder_;
};

TEST_F(ExportNative, KeepsTheModelAndLeavesTheRunBehind) {
  const std::string run = save(adapted(), {1, 2});
  EXPECT_EQ(export_model(run, folder_.path("new"), "native"), folder_.path("new"));
  const auto steps = list_checkpoints(folder_.path("new"));
  ASSERT_EQ(steps.size(), 1U);
  EXPECT_EQ(steps[0].first, 2);
  const CheckpointContents found = load_checkpoint(steps[0].second),
                           expected = load_checkpoint(list_checkpoints(run).back().second);
  ASSERT_EQ(found.model.size(), expected.model.size());
  for (size_t i = 0; i < expected.model.size(); ++i) {
    EXPECT_EQ(found.model[i].first, expected.model[i].first);
    EXPECT_TRUE(at::equal(found.model[i].second, expected.model[i].second)) << expected.model[i].first;
  }
  EXPECT_TRUE(found.optimizer.empty());
  const SavedModel before = load_saved_model(run), after = load_saved_model(folder_.path("new"));
  EXPECT_EQ(nlohmann::json::parse(found.texts.at("state.json")),
            (nlohmann::json{{"tokenizer", before.tokenizer->fingerprint()}}));
  EXPECT_TRUE(after.config.adapter.present());
  EXPECT_TRUE(after.config.exports.format.empty());
  EXPECT_TRUE(at::equal(probe_logits(*before.model), probe_logits(*after.model)));
  EXPECT_TRUE(is_exported(folder_.path("new"), "native"));
  fs::resize_file(steps[0].second + "/config.toml", 3);
  EXPECT_FALSE(is_exported(folder_.path("new"), "native"));
}

TEST_F(ExportNative, TakesTheStepThatIsNamed) {
  const std::string run = save(adapted(), {1, 2});
  export_native(run + "/step-00000001", folder_.path("new"));
  EXPECT_EQ(load_saved_model(folder_.path("new")).step, 1);
  EXPECT_TRUE(at::equal(probe_logits(*load_saved_model(folder_.path("new")).model),
                        probe_logits(*load_saved_model(run + "/step-00000001").model)));
}

// The same writer.
TEST_F(ExportNative, OfAnotherProgramsModelIsWhatImportMakes) {
  const std::string model = LONGREACH_SOURCE_DIR "/tests/checkpoints/formats/models/qwen3";
  export_native(model, folder_.path("new"));
  import_model(model, folder_.path("imported"), {});
  size_t files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder_.path("imported"))) {
    if (!entry.is_regular_file()) continue;
    ++files;
    const fs::path name = fs::relative(entry.path(), folder_.path("imported"));
    EXPECT_EQ(test::read_text(folder_.path("new") / name), test::read_text(entry.path())) << name;
  }
  EXPECT_EQ(files, 3U);  // config.toml, manifest.json, weights
}

TEST_F(ExportNative, MergedHasOnlyWeights) {
  const std::string run = save(adapted(), {3});
  export_model(run, folder_.path("new"), "merged");
  const SavedModel before = load_saved_model(run), after = load_saved_model(folder_.path("new"));
  EXPECT_FALSE(after.config.adapter.present());
  const auto merged = merged_weights(*before.model);
  EXPECT_FALSE(merged.empty());
  const auto expected = before.model->named_parameters();
  for (const auto& item : after.model->named_parameters()) {
    EXPECT_FALSE(is_adapter_parameter(item.key()));
    const auto found = merged.find(item.key());
    EXPECT_TRUE(at::equal(item.value(), found == merged.end() ? expected[item.key()] : found->second))
        << item.key();
  }
  EXPECT_LE(relative_difference(probe_logits(*before.model), probe_logits(*after.model)), 1e-5);
}

TEST_F(ExportNative, RefusesAndLeavesNothing) {
  RunConfig plain = adapted();
  plain.adapter = {};
  plain.exports = {};
  const std::string run = save(plain, {1});
  const auto exported = [&](const std::string& format, const ExportOptions& options = {}) {
    export_model(run, folder_.path("new"), format, options);
  };
  test::expect_error<ConfigError>("the model has no adapters", [&] { exported("merged"); });
  test::expect_error<ConfigError>("--dtype: `native` is written as it is",
                                  [&] { exported("native", {.dtype = "bfloat16"}); });
  test::expect_error<ConfigError>("--family: goes with --format hf",
                                  [&] { exported("native", {.family = "llama"}); });
  CheckpointContents broken = load_checkpoint(run + "/step-00000001");
  broken.step = 2;
  const at::NoGradGuard no_grad;
  broken.model[1].second.view(-1)[0] = std::numeric_limits<float>::quiet_NaN();
  save_checkpoint(run, broken);
  test::expect_error<CheckpointError>(broken.model[1].first + " holds a NaN", [&] { exported("native"); });
  expect_no_new_folder();
  fs::create_directories(folder_.path("new/own"));
  test::expect_error<CheckpointError>("exists and is not empty", [&] { exported("native"); });
}

}  // namespace
}  // namespace longreach
