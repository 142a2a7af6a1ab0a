// Models that transformers saved, read as ours: the same logits and continuations; as checkpoints, and as
// what a run starts from; and files that are no model, are of another one, or hold what cannot be.
#include "train/import.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "checkpoints/checked_file.h"
#include "checkpoints/formats/foreign_model.h"
#include "checkpoints/formats/torch_file.h"
#include "core/temporary_folder.h"
#include "layers/basic/module.h"
#include "tests/support/errors.h"
#include "tests/support/live_bytes.h"
#include "tests/support/saved_model.h"
#include "tests/support/small_model.h"
#include "train/base_model.h"
#include "train/gates.h"
#include "train/model_origin.h"
#include "train/program/verify_model.h"
#include "train/saved_model.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;

const std::string kModels = std::string(LONGREACH_SOURCE_DIR) + "/tests/checkpoints/formats/models/";
const std::vector<std::string> kFamilies{"llama", "mistral", "qwen2", "qwen3", "minimax"};

int verified(const std::string& model, const std::string& file, std::string* printed = nullptr) {
  std::ostringstream out, errors;
  const int code = verify_model(model, {file}, {}, out, errors);
  if (printed != nullptr) *printed = out.str() + errors.str();
  return code;
}

std::string logits_of(const std::string& family) { return kModels + family + "/logits.safetensors"; }

// A copy of a family's folder, to be changed.
std::string copy_of(const std::string& family, const TemporaryFolder& folder) {
  fs::copy(kModels + family, folder.path(family), fs::copy_options::recursive);
  return folder.path(family);
}

void replace_in(const std::string& file, const std::string& from, const std::string& to) {
  std::ifstream in(file);
  std::stringstream contents;
  contents << in.rdbuf();
  std::string changed = contents.str();
  const size_t at = changed.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  std::ofstream(file) << changed.replace(at, from.size(), to);
}

// The tensors of a model, one of them changed.
void change_weights(const std::string& folder,
                    const std::function<void(std::map<std::string, at::Tensor>&)>& change) {
  const std::string path = folder + "/model.safetensors";
  std::map<std::string, at::Tensor> tensors;
  {
    const SafetensorsFile file(path);
    for (const auto& [name, entry] : file.entries()) tensors[name] = file.tensor(name);
  }
  change(tensors);
  write_safetensors(path, {tensors.begin(), tensors.end()});
}

TEST(Import, EveryFamilyHasTheLogitsOfTransformers) {
  for (const std::string& family : kFamilies) {
    SCOPED_TRACE(family);
    std::string printed;
    EXPECT_EQ(verified(kModels + family, logits_of(family), &printed), 0) << printed;
    EXPECT_NE(printed.find("2 tensors, 0 failed"), std::string::npos) << printed;
  }
}

TEST(Import, OfAnotherModelDiffers) {
  EXPECT_EQ(verified(kModels + "qwen2", logits_of("mistral")), 1);
  std::string printed;
  EXPECT_EQ(verified(kModels + "qwen2", kModels + "qwen3/model.safetensors", &printed), 2);
  EXPECT_NE(printed.find("model.safetensors"), std::string::npos) << printed;
}

TEST(Import, WritesACheckpointOfTheSameBits) {
  const TemporaryFolder folder;
  for (const std::string& family : kFamilies) {
    SCOPED_TRACE(family);
    const std::string target = folder.path("imported/" + family);
    fs::create_directories(folder.path("imported"));
    const Imported imported = import_model(kModels + family, target, {});
    EXPECT_EQ(imported.difference, 0);
    EXPECT_TRUE(fs::exists(imported.path + "/manifest.json"));
    EXPECT_EQ(verified(target, logits_of(family)), 0);
    const auto from = open_foreign_model(kModels + family).tensors;
    const ModelOrigin to = open_origin(target);
    for (const std::string& name : from->names())
      EXPECT_TRUE(at::equal(from->tensor(name), to.tensors->tensor(name))) << name;
    test::expect_error<CheckpointError>("exists and is not empty",
                                        [&] { import_model(kModels + family, target, {}); });
  }
}

// What a Hugging Face cache holds: a folder of links.
TEST(Import, FollowsLinks) {
  const TemporaryFolder folder;
  fs::create_directory(folder.path("links"));
  for (const char* file : {"config.json", "model.safetensors"})
    fs::create_symlink(kModels + "qwen3/" + file, folder.path("links") + "/" + file);
  EXPECT_EQ(verified(folder.path("links"), logits_of("qwen3")), 0);
}

TEST(Import, ARunStartsFromSuchAFolder) {
  RunConfig config;
  config.job.dump_folder = "/nowhere";
  config.checkpoint.initial_load_path = kModels + "qwen3";
  const auto base = inherited_config(config);
  ASSERT_TRUE(base.has_value());
  EXPECT_TRUE(base->model.qk_norm);
  EXPECT_EQ(base->model.head_dim, 12);
  EXPECT_EQ(base->data.tokenizer, "none");
}

TEST(Import, KnowsWhatEndsAText) {
  const TemporaryFolder folder;
  const std::string copy = copy_of("qwen3", folder);
  const auto ends = [&](const std::string& json) {
    folder.write("qwen3/generation_config.json", json);
    return load_saved_model(copy).ends_of_text();
  };
  EXPECT_TRUE(load_saved_model(copy).ends_of_text().empty());
  EXPECT_EQ(ends(R"({"eos_token_id": 2})"), (std::vector<int64_t>{2}));
  EXPECT_EQ(ends(R"({"eos_token_id": [2, 30]})"), (std::vector<int64_t>{2, 30}));
  EXPECT_TRUE(ends(R"({"eos_token_id": null})").empty());
  for (const char* wrong :
       {R"({"eos_token_id": 31})", R"({"eos_token_id": [-1]})", R"({"eos_token_id": "x"})", R"([2])", "{"})
    test::expect_error<ConfigError>("`eos_token_id`: expected an id, or a list of ids, below 31",
                                    [&] { ends(wrong); });
}

TEST(Import, RefusesWhatIsNoModel) {
  const TemporaryFolder folder;
  const auto refused = [&](const std::string& words, const std::string& path) {
    test::expect_error<UserError>(words, [&] { import_model(path, folder.path("new"), {}); });
    EXPECT_FALSE(fs::exists(folder.path("new")));
  };
  refused("is no model of another program", folder.path());
  refused("is no model of another program", "/nowhere");
  const std::string unknown = copy_of("llama", folder);
  replace_in(unknown + "/config.json", "\"llama\"", "\"lama\"");
  refused("`model_type`: found \"lama\", expected one of", unknown);
}

TEST(Import, RefusesSizesAndTensorsThatContradictEachOther) {
  const auto refused = [](const std::string& family, const std::string& words, const auto& change) {
    const TemporaryFolder folder;
    const std::string copy = copy_of(family, folder);
    change(copy);
    test::expect_error<UserError>(words, [&] { import_model(copy, folder.path("new"), {}); });
    EXPECT_FALSE(fs::exists(folder.path("new")));
  };
  refused("qwen3", "embed_tokens.weight has shape [31, 16], this config makes [1000000000, 16]",
          [](const std::string& copy) {
            replace_in(copy + "/config.json", "\"vocab_size\": 31", "\"vocab_size\": 1000000000");
          });
  refused("qwen3", "holds no model.layers.2.", [](const std::string& copy) {
    replace_in(copy + "/config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    replace_in(copy + "/config.json", "\"layer_types\": [\n    \"full_attention\",",
               "\"layer_types\": [\"full_attention\", \"full_attention\",");
  });
  refused("qwen3", "this config has no model.layers.0.self_attn.sinks", [](const std::string& copy) {
    change_weights(copy, [](auto& tensors) { tensors["model.layers.0.self_attn.sinks"] = at::zeros({2}); });
  });
  refused("qwen3", "holds no model.norm.weight", [](const std::string& copy) {
    change_weights(copy, [](auto& tensors) { tensors.erase("model.norm.weight"); });
  });
  refused("llama", "`lm_head.weight` is not `model.embed_tokens.weight`", [](const std::string& copy) {
    change_weights(copy, [](auto& tensors) { tensors["lm_head.weight"] = at::zeros({31, 16}); });
  });
  refused("qwen3", "model.norm.weight holds a NaN or an infinity", [](const std::string& copy) {
    change_weights(copy, [](auto& tensors) {
      tensors["model.norm.weight"][3] = std::numeric_limits<float>::quiet_NaN();
    });
  });
  refused("qwen2", "does not hold it", [](const std::string& copy) {
    replace_in(copy + "/model.safetensors.index.json", "\"model.norm.weight\": \"",
               "\"model.nrm.weight\": \"");
  });
  refused("qwen2", "expected the name of a file in this folder", [](const std::string& copy) {
    replace_in(copy + "/model.safetensors.index.json", "\"model.norm.weight\": \"",
               "\"model.norm.weight\": \"../");
  });
}

// A Llama of random weights, of these sizes, as transformers would save it.
std::string llama_of(const ModelConfig& config, const TemporaryFolder& folder) {
  folder.write("llama/config.json",
               text(R"({"model_type": "llama", "vocab_size": )", config.vocab_size, R"(, "hidden_size": )",
                    config.hidden_size, R"(, "intermediate_size": )", config.intermediate_size,
                    R"(, "num_hidden_layers": )", config.num_hidden_layers, R"(, "num_attention_heads": )",
                    config.num_attention_heads, R"(, "rms_norm_eps": 1e-5})"));
  const Transformer model(config, 1);
  write_safetensors(folder.path("llama/model.safetensors"), model_tensors(model));
  return folder.path("llama");
}

// Of tensors; activations of 64 tokens are less than a MiB here.
TEST(Import, NeedsMemoryForTheModelAndItsLargestTensor) {
  const TemporaryFolder folder;
  ModelConfig config;
  config.vocab_size = 300;
  config.num_hidden_layers = 6;
  config.tie_word_embeddings = false;
  config.resolve(0);
  const std::string source = llama_of(config, folder);
  int64_t all = 0, largest = 0;
  const SafetensorsFile file(source + "/model.safetensors");
  for (const auto& [name, entry] : file.entries()) {
    all += entry.end - entry.begin;
    largest = std::max(largest, entry.end - entry.begin);
  }
  test::LiveBytes& tensors = test::LiveBytes::counted();
  tensors.forget_most();
  const int64_t before = tensors.now();
  import_model(source, folder.path("new"), {});
  EXPECT_GT(all, int64_t{15} << 20);
  EXPECT_LE(tensors.most() - before, all + largest + (int64_t{1} << 20));
  EXPECT_EQ(tensors.now(), before);
}

TEST(Import, TakesNonfiniteWeightsWhenAsked) {
  const TemporaryFolder folder;
  const std::string copy = copy_of("qwen3", folder);
  change_weights(
      copy, [](auto& tensors) { tensors["lm_head.weight"][3][2] = std::numeric_limits<float>::infinity(); });
  EXPECT_NO_THROW(import_model(copy, folder.path("new"), {.ignored = {}, .allow_nonfinite = true}));
}

// transformers before 5 wrote rotary_emb.inv_freq, and pickles before that; AutoModel leaves out the prefix;
// bfloat16 is widened.
TEST(Import, ReadsOlderSpellings) {
  const TemporaryFolder folder;
  const std::string copy = copy_of("llama", folder);
  change_weights(copy, [](auto& tensors) {
    std::map<std::string, at::Tensor> bare;
    for (const auto& [name, tensor] : tensors) bare[name.substr(std::string("model.").size())] = tensor;
    bare["layers.0.self_attn.rotary_emb.inv_freq"] = at::zeros({6});
    tensors = bare;
  });
  EXPECT_EQ(verified(copy, logits_of("llama")), 0);
  change_weights(copy, [](auto& tensors) {
    for (auto& [name, tensor] : tensors) tensor = tensor.to(at::kBFloat16);
  });
  {
    const SafetensorsFile file(copy + "/model.safetensors");
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const auto& [name, entry] : file.entries()) tensors.emplace_back(name, file.tensor(name));
    write_torch_file(copy + "/pytorch_model.bin", tensors);
  }
  fs::remove(copy + "/model.safetensors");
  const SavedModel model = load_saved_model(copy);
  for (const at::Tensor& parameter : model.model->parameters())
    EXPECT_EQ(parameter.scalar_type(), at::kFloat);
}

// pytorch_model.bin in two files, with their index. in_both: they share a tensor.
std::string in_pickled_shards(const TemporaryFolder& folder, bool in_both = false) {
  const std::string copy = copy_of("llama", folder);
  std::vector<std::pair<std::string, at::Tensor>> shards[2];
  std::string map;
  {
    const SafetensorsFile file(copy + "/model.safetensors");
    for (const auto& [name, entry] : file.entries()) {
      const size_t shard = shards[0].size() > shards[1].size() ? 1 : 0;
      shards[shard].emplace_back(name, file.tensor(name));
      map += text(map.empty() ? "" : ", ", "\"", name, "\": \"shard-", shard, ".bin\"");
    }
  }
  if (in_both) shards[1].push_back(shards[0].front());
  for (size_t i = 0; i < 2; ++i) write_torch_file(text(copy, "/shard-", i, ".bin"), shards[i]);
  folder.write("llama/pytorch_model.bin.index.json", "{\"weight_map\": {" + map + "}}");
  fs::remove(copy + "/model.safetensors");
  return copy;
}

TEST(Import, ReadsPickledShards) {
  const TemporaryFolder folder, doubled, missing;
  EXPECT_EQ(verified(in_pickled_shards(folder), logits_of("llama")), 0);
  test::expect_error<CheckpointError>("shard-1.bin: `",
                                      [&] { load_saved_model(in_pickled_shards(doubled, true)); });
  const std::string copy = in_pickled_shards(missing);
  replace_in(copy + "/pytorch_model.bin.index.json", "\"model.norm.weight\"", "\"model.nrm.weight\"");
  test::expect_error<CheckpointError>("pytorch_model.bin.index.json: `model.nrm.weight`: shard-",
                                      [&] { load_saved_model(copy); });
  fs::remove(copy + "/shard-1.bin");
  test::expect_error<CheckpointError>("shard-1.bin", [&] { load_saved_model(copy); });
}

// A model with one layer that has a gate and one that has none.
RunConfig gated_config() {
  RunConfig config;
  config.model = test::small_model();
  SeerConfig seer;
  seer.block_size = 16;
  seer.gate_hidden = 8;
  config.model.attention = {{"0", seer}, {"1", DenseConfig{}}};
  return config;
}

TEST(Import, TakesGatesOfTheirAuthorsFile) {
  const TemporaryFolder folder;
  const std::string base = test::save_untrained(gated_config(), folder.path("base"));
  const SavedModel other = load_saved_model(test::save_untrained(gated_config(), folder.path("other")));
  {
    const at::NoGradGuard no_grad;
    for (auto& item : other.model->named_parameters()) item.value().add_(0.5);
  }
  const std::string gates = write_gates(*other.model, "other", folder.path("gates"));
  for (const std::string& source : {gates, folder.path("gates")}) {
    const std::string target = folder.path(source == gates ? "by_file" : "by_folder");
    const Imported imported = import_model(source, target, {.ignored = {}, .base = base});
    EXPECT_EQ(imported.difference, 0.0);
    const SavedModel made = load_saved_model(target), before = load_saved_model(base);
    int64_t taken = 0;
    for (const auto& item : made.model->named_parameters()) {
      const bool gate = is_gate_parameter(item.key());
      taken += gate ? 1 : 0;
      const auto& from = gate ? other : before;
      EXPECT_TRUE(at::equal(item.value(), from.model->named_parameters()[item.key()])) << item.key();
    }
    EXPECT_GT(taken, 0);
  }
  test::expect_error<UserError>("holds gates; --base says which model they are for",
                                [&] { import_model(gates, folder.path("new"), {}); });
  EXPECT_FALSE(fs::exists(folder.path("new")));
}

// As SeerAttention publishes them: gates alone, and what they are for.
TEST(Import, GivesGatesToADenseModel) {
  const TemporaryFolder folder;
  RunConfig config = gated_config();
  config.model.attention = {{"all", config.model.attention[0].config}};
  const std::string gated = test::save_untrained(config, folder.path("gated"));
  const SavedModel taught = load_saved_model(gated);
  const std::string gates = write_gates(*taught.model, "base", folder.path("gates"));
  config.model.attention = {{"all", DenseConfig{}}};
  const std::string base = test::save_untrained(config, folder.path("dense"));
  const SavedModel dense = load_saved_model(base);
  import_model(folder.path("gates"), folder.path("both"), {.ignored = {}, .base = base});
  const SavedModel both = load_saved_model(folder.path("both"));
  for (const auto& item : both.model->named_parameters()) {
    const auto& from = is_gate_parameter(item.key()) ? taught : dense;
    EXPECT_TRUE(at::equal(item.value(), from.model->named_parameters()[item.key()])) << item.key();
  }
  EXPECT_EQ(both.model->parameters().size(), taught.model->parameters().size());
  const auto json = nlohmann::ordered_json::parse(read_text_file(folder.path("gates/config.json"), 1 << 20));
  EXPECT_EQ(json.at("hidden_size"), dense.config.model.hidden_size);
  EXPECT_EQ(json.at("base_model"), "base");
  EXPECT_FALSE(json.contains("architectures"));
  const auto refused = [&](const char* key, const nlohmann::ordered_json& value, const std::string& said) {
    auto other = json;
    other[key] = value;
    if (value.is_null()) other.erase(key);
    fs::remove(folder.path("gates/config.json"));
    folder.write("gates/config.json", other.dump());
    test::expect_error<ConfigError>(
        said, [&] { import_model(folder.path("gates"), folder.path("new"), {.ignored = {}, .base = base}); });
  };
  refused("seerattn_gate_block_size", "64", "seerattn_gate_block_size: expected an integer, found \"64\"");
  refused("seerattn_sparsity_method", "best", "seerattn_sparsity_method: expected threshold, nz_ratio or");
  refused("seerattn_start_layer", 1, "seerattn_start_layer: found 1, only 0 is known");
  refused("seerattn_new", 1, "seerattn_new: not understood");
  import_model(folder.path("gates"), folder.path("ignored"), {.ignored = {"seerattn_new"}, .base = base});
  fs::remove(folder.path("gates/config.json"));
  test::expect_error<ConfigError>("no config.json beside the gates", [&] {
    import_model(gates, folder.path("new"), {.ignored = {}, .base = base});
  });
  EXPECT_FALSE(fs::exists(folder.path("new")));
}

}  // namespace
}  // namespace longreach
