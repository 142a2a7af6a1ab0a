// Adapters that go out in PEFT's layout and come in again, LongLoRA's files, and what is refused.
#include "checkpoints/formats/peft_reader.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "checkpoints/formats/peft.h"
#include "checkpoints/formats/torch_file.h"
#include "checkpoints/safetensors.h"
#include "core/error.h"
#include "tests/support/errors.h"
#include "tests/support/files.h"
#include "tests/support/random_tensors.h"
#include "tests/support/small_model.h"

namespace longreach::test {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

ModelConfig resolved(bool tied) {
  ModelConfig config = small_model();
  config.tie_word_embeddings = tied;
  config.resolve(50);
  return config;
}

NamedTensors tensors_of(const Transformer& model) {
  NamedTensors all;
  for (const auto& item : model.named_parameters()) all.emplace_back(item.key(), item.value().detach());
  return all;
}

// A model whose adapters, and what is saved beside them, are not as they began.
struct Tuned {
  explicit Tuned(AdapterConfig chosen, bool tied = false)
      : config(std::move(chosen)), model_config(resolved(tied)), model(model_config, 1) {
    const at::NoGradGuard no_grad;
    add_adapters(model, config, 7);
    for (auto& item : model.named_parameters())
      if (item.value().requires_grad()) item.value().copy_(normal(item.value().sizes().vec(), 3));
    write_peft(model, tensors_of(model), config, "base", path());
  }
  std::string path() const { return folder.path("peft"); }
  std::string config_path() const { return path() + "/adapter_config.json"; }

  AdapterConfig config;
  ModelConfig model_config;
  Transformer model;
  TemporaryFolder folder;
};

void expect_same_trained(const Transformer& expected, const Transformer& found) {
  for (const auto& item : expected.named_parameters())
    if (item.value().requires_grad()) {
      EXPECT_TRUE(found.named_parameters()[item.key()].equal(item.value())) << item.key();
    }
}

const AdapterConfig kPlain{
    .type = "lora", .r = 4, .lora_alpha = 12, .target_modules = {"q_proj", "down_proj"}};

TEST(PeftReader, TakesBackWhatWasWritten) {
  for (const bool tied : {false, true}) {
    AdapterConfig config = kPlain;
    config.modules_to_save = {"embed_tokens", "norm"};
    const Tuned tuned(config, tied);
    const PeftAdapter adapter = read_peft(tuned.path(), tuned.model_config);
    EXPECT_EQ(adapter.base, "base");
    EXPECT_EQ(adapter.config.r, 4);
    EXPECT_EQ(adapter.config.lora_alpha, 12);
    EXPECT_THAT(adapter.config.target_modules, ElementsAre("q_proj", "down_proj"));
    Transformer fresh(tuned.model_config, 1);
    apply_peft(fresh, adapter);
    expect_same_trained(tuned.model, fresh);
  }
}

// The two files and the config that LongLoRA's training script leaves.
TEST(PeftReader, ReadsLongLora) {
  AdapterConfig config = kPlain;
  config.modules_to_save = {"embed", "norm"};
  const Tuned tuned(config);
  const TemporaryFolder folder;
  NamedTensors adapters, trainable;
  for (const auto& [name, tensor] : tensors_of(tuned.model))
    if (is_adapter_parameter(name))
      adapters.emplace_back("base_model.model." + name, tensor);
    else if (is_saved_parameter(config, name))
      trainable.emplace_back(name, tensor);
  write_torch_file(folder.path("adapter_model.bin"), adapters);
  write_torch_file(folder.path("trainable_params.bin"), trainable);
  write_file(
      folder.path("adapter_config.json"),
      R"({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 12.0, "lora_dropout": 0.0,
                 "target_modules": ["q_proj", "down_proj"], "modules_to_save": null, "bias": "none",
                 "fan_in_fan_out": false, "inference_mode": true, "base_model_name_or_path": null})");
  const PeftAdapter adapter = read_peft(folder.path("."), tuned.model_config);
  EXPECT_THAT(adapter.config.modules_to_save, ElementsAre("embed", "norm"));
  Transformer fresh(tuned.model_config, 1);
  apply_peft(fresh, adapter);
  expect_same_trained(tuned.model, fresh);
}

// Beside what PEFT reads stands what LongLoRA's scripts ask for, and it must say the same.
TEST(PeftReader, WritesWhatLongLoraReads) {
  for (const bool tied : {false, true}) {
    AdapterConfig config = kPlain;
    config.modules_to_save = {"embed_tokens", "norm"};
    const Tuned tuned(config, tied);
    const std::string path = tuned.path() + "/trainable_params.bin";
    NamedTensors trainable;
    for (const auto& [name, tensor] : tensors_of(tuned.model))
      if (is_saved_parameter(config, name)) trainable.emplace_back(name, tensor);
    EXPECT_EQ(trainable.size(), 6U) << "an embedding, two norms of two layers, the last norm";
    const TorchFile file(path);
    EXPECT_EQ(file.names().size(), trainable.size());
    for (const auto& [name, tensor] : trainable) EXPECT_TRUE(file.tensor(name).equal(tensor)) << name;
    const auto saved = [&] { return read_peft(tuned.path(), tuned.model_config).config.modules_to_save; };
    const std::vector<std::string> with_the_file = saved();
    fs::remove(path);
    EXPECT_EQ(saved(), with_the_file);
    trainable.back().second = trainable.back().second + 1;
    write_torch_file(path, trainable);
    expect_error<CheckpointError>("trainable_params.bin: `" + trainable.back().first + "`: is another one in",
                                  [&] { read_peft(tuned.path(), tuned.model_config); });
  }
}

TEST(PeftReader, WritesNoFileForLongLoraWhereNothingOfItTrains) {
  AdapterConfig config = kPlain;
  EXPECT_FALSE(fs::exists(Tuned(config).path() + "/trainable_params.bin"));
  config.modules_to_save = {"lm_head"};
  EXPECT_FALSE(fs::exists(Tuned(config).path() + "/trainable_params.bin"));
}

// What adapter_config.json with `value` for `key` leads to.
AdapterConfig with_setting(const Tuned& tuned, const std::string& key, const nlohmann::json& value) {
  auto json = nlohmann::json::parse(read_text(tuned.config_path()));
  json[key] = value;
  write_file(tuned.config_path(), json.dump());
  return read_peft(tuned.path(), tuned.model_config).config;
}

TEST(PeftReader, UnderstandsRankStabilisedScalesAndAllLinear) {
  const Tuned tuned(kPlain);
  EXPECT_EQ(with_setting(tuned, "use_rslora", true).lora_alpha, 24) << "12 / sqrt(4) = 24 / 4";
  EXPECT_THAT(with_setting(tuned, "target_modules", "all-linear").target_modules,
              UnorderedElementsAre("q_proj", "down_proj"));
}

TEST(PeftReader, RefusesSettingsByName) {
  const Tuned tuned(kPlain);
  const std::string whole = read_text(tuned.config_path());
  const auto refused = [&](const std::string& key, const nlohmann::json& value) -> std::string {
    std::string message;
    try {
      with_setting(tuned, key, value);
    } catch (const ConfigError& error) {
      message = error.what();
    }
    write_file(tuned.config_path(), whole);
    EXPECT_THAT(message, HasSubstr("adapter_config.json: `" + key + "`"));
    return message;
  };
  refused("peft_type", "IA3");
  refused("task_type", "SEQ_CLS");
  refused("bias", "all");
  refused("use_dora", true);
  refused("rank_pattern", {{"q_proj", 3}});
  refused("alpha_pattern", {{"q_proj", 3}});
  refused("layers_to_transform", {0});
  refused("fan_in_fan_out", true);
  refused("init_lora_weights", "pissa");
  refused("some_new_option", 1);
  refused("r", 0);
  refused("r", 2.5);
  refused("r", "4");
  refused("lora_alpha", 0.5);
  refused("lora_dropout", 1);
  refused("modules_to_save", {1});
  EXPECT_THAT(refused("target_modules", ".*q_proj"), HasSubstr("a regular expression"));
  EXPECT_THAT(refused("target_modules", {"layers.0.self_attn.q_proj"}), HasSubstr("last part of a name"));
  EXPECT_THAT(refused("target_modules", 3), HasSubstr("expected a list of strings"));
  write_file(tuned.config_path(), "[1");
  EXPECT_THROW(read_peft(tuned.path(), tuned.model_config), ConfigError);
  write_file(tuned.config_path(),
             R"({"peft_type": "LORA", "r": 3, "target_modules": ["q_proj"], "use_rslora": true})");
  EXPECT_THROW(read_peft(tuned.path(), tuned.model_config), ConfigError) << "8 sqrt(3) is no integer";
}

TEST(PeftReader, RefusesTensorsThatDoNotFit) {
  const auto refused = [](const std::function<void(NamedTensors&)>& damage,
                          bool tied = false) -> std::string {
    AdapterConfig config = kPlain;
    config.modules_to_save = {"embed_tokens"};
    const Tuned tuned(config, tied);
    const std::string path = tuned.path() + "/adapter_model.safetensors";
    fs::remove(tuned.path() + "/trainable_params.bin");  // which says some of it again
    NamedTensors tensors;
    {
      const SafetensorsFile file(path);
      for (const auto& [name, entry] : file.entries()) tensors.emplace_back(name, file.tensor(name));
    }
    damage(tensors);
    write_safetensors(path, tensors);
    Transformer fresh(tuned.model_config, 1);
    try {
      apply_peft(fresh, read_peft(tuned.path(), tuned.model_config));
    } catch (const CheckpointError& error) {
      return error.what();
    }
    return {};
  };
  EXPECT_EQ(refused([](NamedTensors&) {}), "");
  EXPECT_THAT(refused([](NamedTensors& all) { all.erase(all.begin()); }), HasSubstr("has no tensor `model."));
  EXPECT_THAT(refused([](NamedTensors& all) { all[0].first = "other"; }),
              HasSubstr("begin with base_model.model."));
  EXPECT_THAT(refused([](NamedTensors& all) { all.emplace_back("base_model.model.other", all[0].second); }),
              HasSubstr("`other` belongs to nothing"));
  EXPECT_THAT(refused([](NamedTensors& all) {
                for (auto& [name, tensor] : all)
                  if (name.ends_with("lora_A.weight")) tensor = tensor.narrow(0, 0, 3);
              }),
              HasSubstr("no adapter of r = 4"));
  EXPECT_THAT(refused([](NamedTensors& all) {
                for (auto& [name, tensor] : all)
                  if (name.ends_with("lora_A.weight")) tensor = tensor.narrow(1, 0, 3);
              }),
              HasSubstr("has shape [4, 3], the base model's [4, "));
  EXPECT_THAT(refused(
                  [](NamedTensors& all) {
                    for (auto& [name, tensor] : all)
                      if (name.ends_with("lm_head.weight")) tensor = tensor + 1;
                  },
                  true),
              HasSubstr("ties its output layer"));
  const auto without_output = [](NamedTensors& all) {
    std::erase_if(all, [](const auto& named) { return named.first.ends_with("lm_head.weight"); });
  };
  EXPECT_THAT(refused(without_output, true), HasSubstr("is saved without the output layer"));
}

TEST(PeftReader, RefusesFoldersThatHoldNoAdapter) {
  const Tuned tuned(kPlain);
  std::filesystem::remove(tuned.path() + "/adapter_model.safetensors");
  EXPECT_THROW(read_peft(tuned.path(), tuned.model_config), CheckpointError);
  std::filesystem::remove(tuned.config_path());
  EXPECT_THROW(read_peft(tuned.path(), tuned.model_config), ConfigError);
}

}  // namespace
}  // namespace longreach::test
