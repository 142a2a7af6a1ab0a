// What PEFT finds in a folder of adapters: names, tensors, settings.
#include "checkpoints/formats/peft.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "checkpoints/checked_file.h"
#include "checkpoints/safetensors.h"
#include "core/error.h"
#include "core/temporary_folder.h"
#include "tests/support/small_model.h"

namespace longreach::test {
namespace {

struct Adapted {
  AdapterConfig config{.type = "lora", .r = 2, .target_modules = {"q_proj"}};
  Transformer model{resolved(), 1};

  static ModelConfig resolved() {
    ModelConfig config = small_model();
    config.resolve(50);
    return config;
  }
  NamedTensors tensors() const {
    NamedTensors all;
    for (const auto& item : model.named_parameters()) all.emplace_back(item.key(), item.value().detach());
    return all;
  }
};

TEST(Peft, WritesTheAdaptersAlone) {
  Adapted adapted;
  add_adapters(adapted.model, adapted.config, 7);
  const TemporaryFolder folder;
  write_peft(adapted.model, adapted.tensors(), adapted.config, "base", folder.path("peft"));
  const SafetensorsFile file(folder.path("peft/adapter_model.safetensors"));
  EXPECT_EQ(file.entries().size(), 4u);  // A and B of two layers
  const at::Tensor b = file.tensor("base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight");
  EXPECT_EQ(b.sizes(), (std::vector<int64_t>{32, 2}));
  const auto json =
      nlohmann::json::parse(read_text_file(folder.path("peft/adapter_config.json"), int64_t{1} << 20));
  EXPECT_EQ(json.at("r"), 2);
  EXPECT_EQ(json.at("base_model_name_or_path"), "base");
  EXPECT_TRUE(json.at("modules_to_save").is_null());
  EXPECT_THROW(write_peft(adapted.model, adapted.tensors(), adapted.config, "", folder.path("peft")),
               CheckpointError);
}

TEST(Peft, AModelWithoutAdaptersIsRefused) {
  const Adapted adapted;
  const TemporaryFolder folder;
  EXPECT_THROW(write_peft(adapted.model, adapted.tensors(), {}, "", folder.path("peft")), ConfigError);
}

}  // namespace
}  // namespace longreach::test
