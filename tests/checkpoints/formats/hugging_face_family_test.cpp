// The list of families, of which README's table is made: it says what export takes.
#include "checkpoints/formats/hugging_face_family.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/checkpoints/formats/changed_models.h"

namespace longreach {
namespace {

// Models of each, with every kind that its layers may be of.
std::multimap<std::string, ModelConfig> models() {
  const SlidingConfig sliding{.window = 4, .sinks = 0};
  const NsaConfig nsa{.compress_block = 16, .compress_stride = 16, .block_size = 16, .num_blocks = 4};
  std::map<std::string, ModelConfig> all;
  for (const HuggingFaceFamily& family : hugging_face_families()) all[family.type] = test::small_model();
  all["mistral"].attention = {layer("all", sliding)};
  for (const char* qwen : {"qwen2", "qwen3"})
    all[qwen].attention = {layer("0", DenseConfig{}), layer("1", sliding)};
  all["qwen2"].attention_bias = true;
  all["qwen3"].qk_norm = true;
  all["minimax"].residual.form = "minimax";
  all["minimax"].attention = {layer("0", LightningConfig{.form = "minimax"}), layer("1", DenseConfig{})};
  all["minicpm_sala"].attention = {layer("0", DenseConfig{.rope = false}),
                                   layer("1", LightningConfig{.form = "hypenet"})};
  all["nsa"].head_dim = 64;
  all["nsa"].attention = {layer("all", nsa)};
  std::multimap<std::string, ModelConfig> resolved(all.begin(), all.end());
  ModelConfig sparse = all["minicpm_sala"];
  sparse.attention[0].config = InfllmConfig{.rope = false};
  resolved.emplace("minicpm_sala", sparse);
  for (auto& [type, config] : resolved) config.resolve(64);
  return resolved;
}

TEST(HuggingFaceFamily, HasTheClassAndTheKindsThatTheListSays) {
  const auto all = models();
  for (const HuggingFaceFamily& family : hugging_face_families()) {
    std::set<std::string> kinds;
    const auto [first, last] = all.equal_range(family.type);
    for (auto model = first; model != last; ++model) {
      const ModelConfig& config = model->second;
      EXPECT_EQ(hugging_face_family(config, family.type), family.type);
      EXPECT_EQ(hugging_face_keys(config, family.type).at("architectures").at(0), family.architecture);
      for (const AttentionConfig& one : attention_per_layer(config.attention, config.num_hidden_layers))
        kinds.emplace(kind_of(one));
    }
    EXPECT_EQ(kinds, std::set<std::string>(family.kinds.begin(), family.kinds.end())) << family.type;
  }
}

}  // namespace
}  // namespace longreach
