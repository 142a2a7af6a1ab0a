// Whole models for other programs: what is written, what is refused, and that what is read back is compared.
#include "train/foreign_export.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "checkpoints/checked_file.h"
#include "checkpoints/safetensors.h"
#include "core/temporary_folder.h"
#include "tests/support/errors.h"
#include "tests/support/saved_model.h"
#include "tests/support/small_model.h"
#include "train/export.h"
#include "train/tokenizer_export.h"

namespace longreach {
namespace {

namespace fs = std::filesystem;

class ForeignExport : public testing::Test {
 protected:
  RunConfig config() const {
    RunConfig config;
    config.model = test::small_model();
    return config;
  }
  std::string save(const RunConfig& config) const {
    return test::save_untrained(config, folder_.path("run"));
  }
  // What is left where something failed.
  void expect_nothing_but_the_run() const {
    for (const auto& entry : fs::directory_iterator(folder_.path()))
      EXPECT_EQ(entry.path().filename(), "run");
  }
  at::Tensor stored(const std::string& name) const {
    return SafetensorsFile(folder_.path("hf/model.safetensors")).tensor(name);
  }

  const TemporaryFolder folder_;
  const std::string kQuery = "model.layers.0.self_attn.q_proj.weight";
};

TEST_F(ForeignExport, WritesWeightsInTheDtypeAndReadsThemBack) {
  const std::string checkpoint = save(config());
  for (const auto& [name, dtype] :
       {std::pair{"float32", at::kFloat}, {"bfloat16", at::kBFloat16}, {"float16", at::kHalf}}) {
    const TemporaryFolder folder;
    write_foreign(checkpoint, folder.path("hf"), "hf", {.dtype = name});
    const SafetensorsFile file(folder.path("hf/model.safetensors"));
    EXPECT_EQ(file.metadata().at("format"), "pt");
    const SavedModel saved = load_saved_model(checkpoint);
    for (const auto& [key, tensor] : model_tensors(*saved.model))
      EXPECT_TRUE(at::equal(file.tensor(key), tensor.to(dtype))) << key;
    EXPECT_TRUE(is_exported(folder.path("hf"), "hf"));
    fs::resize_file(folder.path("hf/model.safetensors"), 4000);
    EXPECT_FALSE(is_exported(folder.path("hf"), "hf"));
  }
}

// Of rows that are whole blocks, and of those that are not (48 and 24 values).
TEST_F(ForeignExport, ReadsGgufBackAsItRounds) {
  RunConfig uneven = config();
  uneven.model.hidden_size = 64;
  uneven.model.head_dim = 12;
  for (const RunConfig& model : {config(), uneven})
    for (const char* dtype : {"float32", "float16", "q8_0"}) {
      const TemporaryFolder folder;
      const std::string checkpoint = test::save_untrained(model, folder.path("run"));
      write_foreign(checkpoint, folder.path("gguf"), "gguf", {.dtype = dtype});
      EXPECT_TRUE(is_exported(folder.path("gguf"), "gguf")) << dtype;
    }
}

TEST_F(ForeignExport, PutsAdaptersIntoWhatTheyBelongTo) {
  RunConfig adapted = config();
  adapted.adapter.type = "lora";
  const std::string checkpoint = save(adapted);
  write_foreign(checkpoint, folder_.path("hf"), "hf");
  const SavedModel saved = load_saved_model(checkpoint);
  EXPECT_TRUE(at::equal(stored(kQuery), merged_weights(*saved.model).at(kQuery)));
  const SafetensorsFile file(folder_.path("hf/model.safetensors"));
  for (const auto& item : file.entries()) EXPECT_FALSE(is_adapter_parameter(item.first)) << item.first;
}

TEST_F(ForeignExport, IsTheFamilyThatIsAskedForOrNothing) {
  RunConfig hybrid = config();
  const std::string checkpoint = save(hybrid);
  const auto exported = [&](const std::string& format) {
    export_model(checkpoint, folder_.path("sala"), format, {.family = "minicpm_sala"});
  };
  test::expect_error<ConfigError>("layer 0: rope = true", [&] { exported("hf"); });
  test::expect_error<ConfigError>("--family: goes with --format hf", [&] { exported("gguf"); });
  expect_nothing_but_the_run();
  hybrid.model.attention = {{.layers = "0", .config = DenseConfig{.rope = false, .output_gate = true}},
                            {.layers = "1", .config = LightningConfig{.form = "hypenet"}}};
  const TemporaryFolder folder;
  export_model(test::save_untrained(hybrid, folder.path("run")), folder.path("sala"), "hf",
               {.family = "minicpm_sala"});
  EXPECT_TRUE(is_exported(folder.path("sala"), "hf"));
}

TEST_F(ForeignExport, TheTokenizerOfBytesIsAFileThere) {
  write_foreign(save(config()), folder_.path("hf"), "hf");
  const auto tokenizer = data::load_tokenizer(folder_.path("hf"));
  EXPECT_EQ(tokenizer->vocab_size(), 257);
  EXPECT_EQ(tokenizer->eos(), 256);
  std::string every_byte;
  for (int byte = 0; byte < 256; ++byte) every_byte += static_cast<char>(byte);
  const std::vector<data::Token> ids = tokenizer->encode(every_byte, false);
  ASSERT_EQ(ids.size(), 256u);
  for (int byte = 0; byte < 256; ++byte) EXPECT_EQ(ids[static_cast<size_t>(byte)], byte);
  EXPECT_EQ(tokenizer->decode(ids), every_byte);
}

TEST_F(ForeignExport, NamesTheWeightThatCannotBeWritten) {
  RunConfig plain = config();
  for (const auto& [value, dtype, part] :
       {std::tuple{std::numeric_limits<float>::quiet_NaN(), "float32", "holds values that are not finite"},
        {1e6F, "float16", "holds values too large for float16"}}) {
    plain.model.resolve(257);
    Transformer model(plain.model, 1);
    {
      const at::NoGradGuard no_grad;
      model.named_parameters()[kQuery].flatten()[5] = value;
    }
    RunConfig written = config();
    written.data.train = {"none.txt"};
    const std::string checkpoint = save_checkpoint(
        folder_.path("run"),
        {.step = 1, .model = model_tensors(model), .texts = {{"config.toml", to_toml(fields_of(written))}}});
    test::expect_error<CheckpointError>(kQuery + ": " + part, [&, dtype = dtype] {
      write_foreign(checkpoint, folder_.path("hf"), "hf", {.dtype = dtype});
    });
    expect_nothing_but_the_run();
  }
}

TEST_F(ForeignExport, RefusesWhatItCannotWriteAndLeavesNothing) {
  test::expect_error<ConfigError>("dtype: `q8_0` is none of float32, bfloat16, float16", [&] {
    write_foreign(save(config()), folder_.path("hf"), "hf", {.dtype = "q8_0"});
  });
  expect_nothing_but_the_run();
  test::expect_error<ConfigError>("--base: goes with --format peft", [&] {
    export_model(save(config()), folder_.path("hf"), "hf", {.base = "x"});
  });
  expect_nothing_but_the_run();
  write_foreign(save(config()), folder_.path("hf"), "hf");
  test::expect_error<CheckpointError>("exists and is not empty",
                                      [&] { write_foreign(save(config()), folder_.path("hf"), "hf"); });
}

TEST_F(ForeignExport, ARunWritesItOnceAndAnewWhereItIsNotWhole) {
  const std::string checkpoint = save(config());
  const auto finish = [&] {
    export_formats_of(folder_.path("run"), checkpoint, {"hf"}, {.dtype = "bfloat16"});
  };
  finish();
  const fs::path folder = folder_.path("run/export/step-00000001/hf"), weights = folder / "model.safetensors";
  ASSERT_TRUE(is_exported(folder, "hf"));
  EXPECT_EQ(SafetensorsFile(weights).tensor(kQuery).scalar_type(), at::kBFloat16);
  const auto written = fs::last_write_time(weights);
  finish();
  EXPECT_EQ(fs::last_write_time(weights), written);
  fs::remove(folder / "config.json");
  finish();
  EXPECT_TRUE(is_exported(folder, "hf"));
  EXPECT_TRUE(fs::exists(folder.string() + ".incomplete"));
}

TEST_F(ForeignExport, ARunWritesTheFamilyThatItsConfigNames) {
  RunConfig hybrid = config();
  hybrid.model.attention = {{.layers = "0", .config = DenseConfig{.rope = false, .output_gate = true}},
                            {.layers = "1", .config = LightningConfig{.form = "hypenet"}}};
  const std::string checkpoint = save(hybrid);
  export_formats_of(folder_.path("run"), checkpoint, {"hf", "native"}, {.family = "minicpm_sala"});
  const std::string exports = folder_.path("run/export/step-00000001/");
  EXPECT_EQ(nlohmann::json::parse(read_text_file(exports + "hf/config.json", 1 << 20)).at("model_type"),
            "minicpm_sala");
  EXPECT_TRUE(is_exported(exports + "native", "native"));
}

TEST_F(ForeignExport, TurnsOfTheVocabularyGetTheirTemplate) {
  std::string json = read_text_file(LONGREACH_SOURCE_DIR "/tests/data/files/bpe_smollm.json", 1 << 24);
  SavedModel saved{.texts = {{"tokenizer/tokenizer.json", json}}};
  const TemporaryFolder files;
  files.write("tokenizer.json", json);
  saved.tokenizer = data::load_tokenizer(files.path());
  const auto made = nlohmann::json::parse(tokenizer_export(saved).at("tokenizer_config.json"));
  EXPECT_THAT(made.at("chat_template").get<std::string>(), testing::HasSubstr("<|im_start|>assistant"));
  EXPECT_EQ(made.at("eos_token"), "<|endoftext|>");
  saved.config.data.chat_template = "llama3";  // whose markers it does not have
  EXPECT_FALSE(
      nlohmann::json::parse(tokenizer_export(saved).at("tokenizer_config.json")).contains("chat_template"));
  // One that the tokenizer brings stays.
  saved.texts["tokenizer/tokenizer_config.json"] = R"({"chat_template": "theirs", "eos_token": "x"})";
  EXPECT_EQ(nlohmann::json::parse(tokenizer_export(saved).at("tokenizer_config.json")),
            nlohmann::json::parse(saved.texts["tokenizer/tokenizer_config.json"]));
}

}  // namespace
}  // namespace longreach
