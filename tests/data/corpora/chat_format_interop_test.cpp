// Ids of conversations beside those of transformers' apply_chat_template.
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "core/temporary_folder.h"
#include "data/corpora/chat_format.h"
#include "tests/support/interop.h"

namespace longreach::data {
namespace {

using nlohmann::ordered_json;
constexpr const char* kFiles = LONGREACH_SOURCE_DIR "/tests/data/files";

class ChatFormatInterop : public longreach::test::Interop {};

TEST_F(ChatFormatInterop, PromptsHaveTheIdsOfTransformers) {
  const TemporaryFolder folder;
  const std::string out = folder.path("ids.json");
  const std::string command = longreach::test::interop_python() +
                              " " LONGREACH_SOURCE_DIR "/tests/data/chat_template/encode.py " + kFiles +
                              " '" + out + "'";
  ASSERT_EQ(std::system(command.c_str()), 0);
  std::ifstream file(out);
  const auto rows = ordered_json::parse(file);
  EXPECT_EQ(rows.size(), 12);
  for (const auto& row : rows) {
    const TemporaryFolder own;
    std::filesystem::copy_file(std::string(kFiles) + "/" + row["tokenizer"].get<std::string>(),
                               own.path("tokenizer.json"));
    own.write("tokenizer_config.json",
              ordered_json{{"chat_template", row["template"]}, {"bos_token", row["bos_token"]}}.dump());
    const auto ids = ChatFormat::of_tokenizer(own.path())
                         ->prompt(*load_tokenizer(own.path()), {{"messages", row["messages"]}});
    EXPECT_EQ(ids, row["ids"].get<std::vector<Token>>()) << row["tokenizer"] << "\n" << row["template"];
  }
}

}  // namespace
}  // namespace longreach::data
