// Turns of a conversation: what is fed, what ends an answer, what is kept.
#include "train/chat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoints/checked_file.h"
#include "core/temporary_folder.h"
#include "tests/support/errors.h"
#include "tests/support/small_model.h"
#include "train/generate_text.h"
#include "train/tokenizer_export.h"

namespace longreach {
namespace {

using nlohmann::ordered_json;

class ChatTurns : public testing::Test {
 protected:
  ChatTurns() {
    saved_.path = "model";
    saved_.texts["tokenizer/tokenizer.json"] =
        read_text_file(LONGREACH_SOURCE_DIR "/tests/data/files/bpe_smollm.json", 1 << 24);
    folder_.write("tokenizer.json", saved_.texts["tokenizer/tokenizer.json"]);
    saved_.tokenizer = data::load_tokenizer(folder_.path());
    saved_.config.model = test::small_model();
    saved_.config.model.max_position_embeddings = 512;
    saved_.config.model.resolve(saved_.tokenizer->vocab_size());
    saved_.model = std::make_shared<Transformer>(saved_.config.model, 3);
    saved_.model->eval();
  }
  // The ids that the model says next, greedily.
  std::vector<int64_t> said(const ordered_json& messages, int64_t count) const {
    const auto format = data::ChatFormat::from_files(tokenizer_export(saved_), "model");
    const auto prompt = format->prompt(*saved_.tokenizer, {{"messages", messages}});
    return generate(*saved_.model, {prompt.begin(), prompt.end()},
                    {.max_new_tokens = count, .temperature = 0});
  }
  std::string text_of(const std::vector<int64_t>& ids) const {
    return saved_.tokenizer->decode(std::vector<data::Token>(ids.begin(), ids.end()));
  }
  static std::string answer(Chat& chat, const std::string& message) {
    std::string streamed;
    const std::string whole = chat.answer(message, [&](std::string_view piece) { streamed += piece; });
    EXPECT_EQ(streamed, whole);
    return whole;
  }

  const TemporaryFolder folder_;
  SavedModel saved_;
};

TEST_F(ChatTurns, AnswersTheConversationSoFar) {
  Chat chat(saved_, {.max_new_tokens = 6, .temperature = 0}, "Be kind.");
  ordered_json messages{{{"role", "system"}, {"content", "Be kind."}}};
  for (const std::string message : {"Hi", "Bye"}) {
    messages.push_back({{"role", "user"}, {"content", message}});
    const std::string expected = text_of(said(messages, 6));
    EXPECT_EQ(answer(chat, message), expected);
    messages.push_back({{"role", "assistant"}, {"content", expected}});
  }
}

TEST_F(ChatTurns, EndsAtTheEndsOfGenerationConfig) {
  const auto ids = said({{{"role", "user"}, {"content", "Hi"}}}, 1);
  const auto answered = [&] {
    Chat chat(saved_, {.max_new_tokens = 8, .temperature = 0}, "");
    return answer(chat, "Hi");
  };
  EXPECT_NE(answered(), "");
  saved_.texts["tokenizer/generation_config.json"] = ordered_json{{"eos_token_id", ids}}.dump();
  EXPECT_EQ(answered(), "");
}

TEST_F(ChatTurns, NeedsATokenizerAndATemplate) {
  const auto begin = [&] { Chat(saved_, {}, ""); };
  saved_.texts["tokenizer/tokenizer_config.json"] = R"({"chat_template": "{{ 1 | shuffle }}"})";
  test::expect_error<DataError>("model: chat_template, line 1: filter `shuffle` is not known", begin);
  saved_.config.data.chat_template = "llama3";  // whose markers the vocabulary does not have
  saved_.texts["tokenizer/tokenizer_config.json"] = "{}";
  test::expect_error<CheckpointError>("came without a chat template", begin);
  saved_.tokenizer = nullptr;
  test::expect_error<CheckpointError>("came without a tokenizer", begin);
}

TEST_F(ChatTurns, KnowsWhetherTextsBeginWithBos) {
  EXPECT_FALSE(begins_with_bos(saved_));
  saved_.texts["tokenizer/tokenizer_config.json"] = R"({"bos_token": "<|im_start|>", "add_bos_token": true})";
  folder_.write("tokenizer_config.json", saved_.texts["tokenizer/tokenizer_config.json"]);
  saved_.tokenizer = data::load_tokenizer(folder_.path());
  EXPECT_TRUE(begins_with_bos(saved_));
  saved_.texts["tokenizer/tokenizer_config.json"] = R"({"bos_token": "<|im_start|>"})";
  EXPECT_FALSE(begins_with_bos(saved_));
  auto json = nlohmann::json::parse(saved_.texts["tokenizer/tokenizer.json"]);
  json["post_processor"] = {{"type", "TemplateProcessing"},
                            {"single",
                             {{{"SpecialToken", {{"id", "<|im_start|>"}, {"type_id", 0}}}},
                              {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}}};
  saved_.texts["tokenizer/tokenizer.json"] = json.dump();
  EXPECT_TRUE(begins_with_bos(saved_));
}

TEST_F(ChatTurns, PutsBosBeforeAPromptOnce) {
  saved_.texts["tokenizer/tokenizer_config.json"] = R"({"bos_token": "<|im_start|>"})";
  folder_.write("tokenizer_config.json", saved_.texts["tokenizer/tokenizer_config.json"]);
  saved_.tokenizer = data::load_tokenizer(folder_.path());
  const auto continued = [&](const std::string& prompt, bool bos) {
    std::vector<data::Token> ids;
    generate_text(*saved_.model, *saved_.tokenizer,
                  {.prompt = prompt,
                   .begins_with_bos = bos,
                   .sampling = {.max_new_tokens = 6, .temperature = 0},
                   .on_token = [&](data::Token id) { ids.push_back(id); }});
    return ids;
  };
  EXPECT_EQ(continued("Hi", true), continued("<|im_start|>Hi", false));
  EXPECT_EQ(continued("<|im_start|>Hi", true), continued("<|im_start|>Hi", false));
  EXPECT_NE(continued("Hi", true), continued("Hi", false));
}

}  // namespace
}  // namespace longreach
