// Conversations in the template of a tokenizer: ids, labels, and what is only spelt.
#include "data/corpora/chat_format.h"

#include <gmock/gmock.h>

#include "data/corpora/json_lines.h"
#include "tests/data/corpora/texts.h"
#include "tests/data/fixtures.h"

namespace longreach::data {
namespace {

using namespace testing;
using nlohmann::ordered_json;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kChatml =
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
// Drops what stands before </think> in all turns but the last.
constexpr const char* kThinking =
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{{ m.content if loop.last else "
    "m.content.split('</think>')[-1] }}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
constexpr const char* kMarked =
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}{% generation %}{{ m.content "
    "}}<|im_end|>"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{{ '\n' }}{% endfor %}";

std::shared_ptr<const ChatFormat> format_of(const std::string& source,
                                            ordered_json config = ordered_json::object()) {
  config["chat_template"] = source;
  return ChatFormat::from_files({{"tokenizer_config.json", config.dump()}}, "folder");
}

ordered_json conversation(const std::vector<ChatMessage>& messages) {
  ordered_json list = ordered_json::array();
  for (const auto& [role, content] : messages) list.push_back({{"role", role}, {"content", content}});
  return {{"messages", list}};
}

// Text with the labelled parts in brackets.
std::string marked(const Tokenizer& tokenizer, const LabelledTokens& example) {
  std::string text;
  uint8_t before = 0;
  for (size_t i = 0; i <= example.tokens.size(); ++i) {
    const uint8_t now = i < example.mask.size() ? example.mask[i] : 0;
    if (before != now) text += now != 0 ? "[" : "]";
    if (i < example.tokens.size()) text += tokenizer.decode({{example.tokens[i]}});
    before = now;
  }
  return text;
}

const ByteLevel kTokenizer({"<|im_end|>", "<|im_start|>", "<s>"}, true);
const std::vector<ChatMessage> kChat{
    {"user", "Hi"}, {"assistant", "Hello!"}, {"user", "Bye"}, {"assistant", "B"}};

TEST(ChatFormat, LearnsTurnsOfTheAssistantWithTheirEnds) {
  const auto example = format_of(kChatml)->example(kTokenizer, conversation(kChat));
  EXPECT_EQ(marked(kTokenizer, example.tokens),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[Hello!<|im_end|>]\n<|im_start|>user\nBye"
            "<|im_end|>\n<|im_start|>assistant\n[B<|im_end|>]\n");
  EXPECT_EQ(example.turns_not_learnt, 0);
  EXPECT_EQ(std::count(example.tokens.tokens.begin(), example.tokens.tokens.end(), 256), 4);
  EXPECT_EQ(example.tokens.tokens, render_chat(kTokenizer, kChat, "chatml").tokens);
  EXPECT_EQ(example.tokens.mask, render_chat(kTokenizer, kChat, "chatml").mask);
  EXPECT_EQ(format_of(kChatml)->end_of_turn(kTokenizer), 256);
  EXPECT_EQ(format_of(kChatml)->end_of_turn(ByteLevel()), std::nullopt);
}

TEST(ChatFormat, AsksForTheNextTurn) {
  const auto prompt = format_of(kChatml)->prompt(kTokenizer, conversation({{"user", "Hi"}}));
  EXPECT_EQ(kTokenizer.decode(prompt), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(prompt.size(), 5 + 2 + 1 + 1 + 1 + 10 + 1);
}

TEST(ChatFormat, KeepsSpeltSpecialTokensAsText) {
  const auto prompt =
      format_of(kChatml)->prompt(kTokenizer, conversation({{"user", "a<|im_end|><|im_end|>b"}}));
  EXPECT_EQ(kTokenizer.decode(prompt),
            "<|im_start|>user\na<|im_end|><|im_end|>b<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(std::count(prompt.begin(), prompt.end(), 256), 1);
  EXPECT_THROW(format_of(kChatml)->prompt(kTokenizer, conversation({{"user", "\xEF\xB7\x90"}})), DataError);
}

TEST(ChatFormat, GivesTheTemplateItsTokensAndWritesThemOnce) {
  const ordered_json config{
      {"bos_token", {{"content", "<s>"}}}, {"eos_token", "<|im_end|>"}, {"pad_token", nullptr}};
  const auto format =
      format_of("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token }}", config);
  EXPECT_EQ(format->prompt(kTokenizer, conversation({{"user", "x"}})), (std::vector<Token>{258, 'x', 256}));
}

TEST(ChatFormat, LeavesTurnsThatAreWrittenOtherwiseLaterUnlearnt) {
  const auto example = format_of(kThinking)->example(
      kTokenizer,
      conversation({{"user", "1"}, {"assistant", "x</think>2"}, {"user", "3"}, {"assistant", "y</think>4"}}));
  EXPECT_EQ(
      marked(kTokenizer, example.tokens),
      "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n<|im_start|>user\n3<|im_end|>\n"
      "<|im_start|>assistant\n[y</think>4<|im_end|>]\n");
  EXPECT_EQ(example.turns_not_learnt, 1);
}

TEST(ChatFormat, FollowsGenerationMarks) {
  const auto example = format_of(kMarked)->example(kTokenizer, conversation(kChat));
  EXPECT_EQ(marked(kTokenizer, example.tokens),
            "[user]Hi\n[assistant][Hello!<|im_end|>]\n[user]Bye\n[assistant][B<|im_end|>]\n");
}

TEST(ChatFormat, EndsWithEosWhereTheTemplateHasNoEnd) {
  const std::string plain =
      "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
      "{% if add_generation_prompt %}assistant: {% endif %}";
  const auto example =
      format_of(plain)->example(kTokenizer, conversation({{"user", "a"}, {"assistant", "b"}}));
  EXPECT_EQ(marked(kTokenizer, example.tokens), "user: a\nassistant: [b\n<|im_end|>]");
}

TEST(ChatFormat, FindsMarkersThatTheTokenizerDoesNot) {
  class Blind : public ByteLevel {  // as SentencePiece, which takes control pieces in a text for text
   public:
    using ByteLevel::ByteLevel;
    std::vector<Token> encode(std::string_view text, bool) const override {
      return ByteLevel::encode(text, false);
    }
  };
  const Blind blind({"</s>", "<s>"}, true);
  const auto format = format_of(
      "{{ bos_token }}{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}"
      "{{ eos_token }}{% endif %}{% endfor %}",
      {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
  const auto example = format->example(blind, conversation({{"user", "</s>?"}, {"assistant", "b"}}));
  EXPECT_EQ(marked(blind, example.tokens), "<s></s>?[b</s>]");
  EXPECT_EQ(example.tokens.tokens, (std::vector<Token>{257, '<', '/', 's', '>', '?', 'b', 256}));
  EXPECT_EQ(format->end_of_turn(blind), 256);
}

TEST(ChatFormat, ReadsWhereTheTemplateLies) {
  EXPECT_EQ(ChatFormat::from_files({{"tokenizer_config.json", "{}"}}, "f"), nullptr);
  EXPECT_EQ(ChatFormat::from_files({}, "f"), nullptr);
  const auto said = [](const std::map<std::string, std::string>& files) {
    return kTokenizer.decode(
        ChatFormat::from_files(files, "f")->prompt(kTokenizer, conversation({{"user", "x"}})));
  };
  EXPECT_EQ(said({{"chat_template.jinja", "a"}, {"tokenizer_config.json", R"({"chat_template": "b"})"}}),
            "a");
  EXPECT_EQ(
      said(
          {{"tokenizer_config.json",
            R"({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]})"}}),
      "d");
  const auto refused = [&](const std::string& config) {
    return error_of([&] { said({{"tokenizer_config.json", config}}); });
  };
  EXPECT_THAT(refused(R"({"chat_template": [{"name": "rag", "template": "r"}]})"),
              AllOf(HasSubstr("f: tokenizer_config.json: chat_template: none is called `default`"),
                    HasSubstr("rag")));
  EXPECT_THAT(refused(R"({"chat_template": 3})"), HasSubstr("none is called `default`"));
  EXPECT_THAT(refused("[]"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(refused(R"({"chat_template": "\n{{ x | shuffle }}"})"),
              HasSubstr("f: chat_template, line 2: filter `shuffle` is not known"));
}

TEST(ChatFormat, ServesLinesOfMessages) {
  const TemporaryFolder folder;
  folder.write("t/tokenizer_config.json", ordered_json{{"chat_template", kChatml}}.dump());
  const auto lines = [&](const std::string& text) {
    ExampleNotes notes;
    return marked(kTokenizer,
                  encode_json_line(text, kTokenizer, "text",
                                   {"auto", chat_format_of("auto", folder.path("t")).get()}, "f:1", notes));
  };
  EXPECT_EQ(
      lines(R"({"messages": [{"role": "human", "content": "a"}, {"role": "Assistant", "content": "b"}]})"),
      "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[b<|im_end|>]\n");
  EXPECT_EQ(lines(R"({"instruction": "a", "output": "b"})"),
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[b<|im_end|>]\n");
  EXPECT_EQ(lines(R"({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]})"),
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[b<|im_end|>]\n");
  EXPECT_THAT(error_of([&] { lines(R"({"messages": [{"role": "user", "content": null}]})"); }),
              AllOf(HasSubstr("f:1: "), HasSubstr("chat_template, line 1")));
  EXPECT_EQ(chat_format_of("chatml", folder.path("t")), nullptr);
  EXPECT_EQ(chat_format_of("auto", "bytes"), nullptr);
  EXPECT_THAT(error_of([] { chat_format_of("checkpoint", "bytes"); }),
              HasSubstr("came without a chat template"));
}

}  // namespace
}  // namespace longreach::data
