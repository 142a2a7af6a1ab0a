// Chat templates: what is written and what is learnt.
#include "data/corpora/chat.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "tests/data/fixtures.h"

namespace longreach::data {
namespace {

using namespace testing;
using ::testing::EndsWith;
using ::testing::HasSubstr;

// Text with the labelled parts in brackets.
std::string marked(const Tokenizer& tokenizer, const LabelledTokens& example) {
  std::string text;
  for (size_t i = 0; i < example.tokens.size(); ++i) {
    const bool before = i > 0 && example.mask[i - 1] != 0, now = example.mask[i] != 0;
    if (before && !now) text += ']';
    if (!before && now) text += '[';
    text += tokenizer.decode({{example.tokens[i]}});
  }
  if (!example.mask.empty() && example.mask.back() != 0) text += ']';
  return text;
}

const std::vector<ChatMessage> kChat{{"system", "Be kind."},
                                     {"user", " Hi <|im_end|>"},
                                     {"assistant", " Hello!\n"},
                                     {"user", "Bye"},
                                     {"assistant", "Bye."}};

TEST(Chat, RendersChatMl) {
  const std::string expected =
      "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n Hi <|im_end|><|im_end|>\n"
      "<|im_start|>assistant\n[ Hello!\n<|im_end|>]\n<|im_start|>user\nBye<|im_end|>\n"
      "<|im_start|>assistant\n[Bye.<|im_end|>";
  const ByteLevel plain, special({"<|im_end|>", "<|im_start|>"}, true), other({"<eos>"}, true);
  EXPECT_EQ(marked(plain, render_chat(plain, kChat, "chatml")), expected + "\n]");
  EXPECT_EQ(marked(other, render_chat(other, kChat, "chatml")), expected + "\n<eos>]");
  const std::vector<ChatMessage> asked(kChat.begin(), kChat.end() - 1);  // nothing is learnt after a question
  EXPECT_THAT(marked(other, render_chat(other, asked, "chatml")), EndsWith("Bye<|im_end|>\n<eos>"));
  EXPECT_THAT(marked(other, render_chat(other, kChat, "llama3")), EndsWith("[Bye.<|eot_id|><eos>]"));
  const auto tokens = render_chat(special, kChat, "chatml");
  EXPECT_EQ(marked(special, tokens), expected + "]\n");
  EXPECT_EQ(std::count(tokens.tokens.begin(), tokens.tokens.end(), 256),
            5);  // the user's own marker is plain text
  EXPECT_EQ(std::count(tokens.tokens.begin(), tokens.tokens.end(), 257), 5);
}

TEST(Chat, RendersLlama3) {
  const ByteLevel special(
      {"<|end_of_text|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
      true);
  const auto tokens = render_chat(special, kChat, "llama3");
  EXPECT_EQ(marked(special, tokens),
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi <|im_end|><|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n[Hello!<|eot_id|>]"
            "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n[Bye.<|eot_id|>]");
  EXPECT_EQ(std::count(tokens.tokens.begin(), tokens.tokens.end(), 257), 1);
  EXPECT_EQ(std::count(tokens.tokens.begin(), tokens.tokens.end(), 260), 5);
  EXPECT_THAT(error_of([&] { render_chat(special, kChat, "alpaca"); }), HasSubstr("chatml, llama3"));
  EXPECT_EQ(end_of_turn("llama3"), "<|eot_id|>");
  EXPECT_EQ(end_of_turn("chatml"), "<|im_end|>");
}

}  // namespace
}  // namespace longreach::data
