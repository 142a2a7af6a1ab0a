// Tokenizers that lie inside a model's file.
#include "train/tokenizer_folder.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "checkpoints/checked_file.h"
#include "checkpoints/formats/gguf/gguf_export.h"
#include "data/corpora/chat_format.h"
#include "tests/support/errors.h"
#include "tests/support/small_model.h"
#include "train/saved_model.h"

namespace longreach {
namespace {

std::string gguf_file(const TemporaryFolder& folder, const std::map<std::string, std::string>& tokenizer) {
  ModelConfig config = test::small_model();
  config.resolve(640);
  std::string file = folder.path("model.gguf");
  write_gguf(file, config, model_tensors(Transformer(config, 1)), tokenizer, {});
  return file;
}

TEST(TokenizerFolder, HoldsWhatLiesInAGgufFile) {
  const TemporaryFolder folder;
  auto json = nlohmann::ordered_json::parse(
      read_text_file(LONGREACH_SOURCE_DIR "/tests/data/files/bpe_smollm.json", 1 << 24));
  auto& added = json["added_tokens"];
  added.erase(added.begin() + 3, added.end());  // with options that GGUF cannot say
  folder.write("tokenizer.json", json.dump());
  folder.write("tokenizer_config.json", R"({"eos_token": "<|im_end|>", "chat_template": "{{ messages }}"})");
  const auto texts = tokenizer_texts(folder.path());
  const std::string file =
      gguf_file(folder, {{"tokenizer.json", texts.at("tokenizer/tokenizer.json")},
                         {"tokenizer_config.json", texts.at("tokenizer/tokenizer_config.json")}});
  std::string inside;
  {
    const TokenizerFolder opened(file);
    inside = opened.path();
    const std::string written = "Text, <|im_end|> and 12 numbers.";
    EXPECT_EQ(opened.load()->encode(written), TokenizerFolder(folder.path()).load()->encode(written));
    EXPECT_NE(data::ChatFormat::of_tokenizer(opened.path()), nullptr);
    EXPECT_THAT(tokenizer_texts(file), testing::Contains(testing::Key("tokenizer/tokenizer.json")));
  }
  EXPECT_FALSE(std::filesystem::exists(inside));
  EXPECT_EQ(TokenizerFolder(folder.path()).path(), folder.path());
  EXPECT_EQ(TokenizerFolder("bytes").path(), "bytes");
}

TEST(TokenizerFolder, NamesAFileWithoutOne) {
  const TemporaryFolder folder;
  const std::string file = gguf_file(folder, {});
  test::expect_error<CheckpointError>(file + ": holds no tokenizer", [&] { TokenizerFolder{file}; });
}

}  // namespace
}  // namespace longreach
