// A text encoded in parts: no space enters between them, and the ids of a long document do not depend on
// where it is cut.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "data/corpora/chat.h"
#include "data/corpora/text_pieces.h"
#include "tests/data/fixtures.h"

namespace longreach::data {
namespace {

using namespace testing;

const std::string kFiles = LONGREACH_SOURCE_DIR "/tests/data/files/";

// The files of every kind, and Llama-2's vocabulary under the rules of Metaspace.
std::vector<std::pair<std::string, std::unique_ptr<Tokenizer>>> every_tokenizer(
    const TemporaryFolder& folder) {
  std::vector<std::pair<std::string, std::unique_ptr<Tokenizer>>> list;
  for (const std::string name : {"bpe_gpt2.json", "bpe_llama2.json", "bpe_llama3.json", "bpe_merged.json",
                                 "bpe_nfkc.json", "bpe_qwen2.json", "bpe_smollm.json", "pairs_fallback.model",
                                 "pairs_unknown.model", "unigram_fallback.model", "unigram_rules.model"})
    list.emplace_back(name, load_tokenizer(kFiles + name));
  list.emplace_back("bytes", load_tokenizer("bytes"));
  for (const std::string scheme : {"first", "always", "never"})
    for (const bool split : {true, false}) {
      auto root = nlohmann::json::parse(contents_of(kFiles + "bpe_llama2.json"));
      root["normalizer"] = nullptr;
      root["pre_tokenizer"] = {
          {"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}, {"split", split}};
      const std::string name = "metaspace_" + scheme + (split ? "_split" : "") + ".json";
      list.emplace_back(name, load_tokenizer(folder.write(name, root.dump())));
    }
  return list;
}

const std::vector<std::string> kWords{"the",  "river", "ran",  " past", "mill", "  ",  "\n",   "x1",
                                      "2024", "-",     "...",  "naïve", "東京", "ing", "ed",   "\t",
                                      " a",   "I'm",   "\n\n", " and",  "s",    "”",   " the", "boats"};

class MemoryStream : public ByteStream {
 public:
  explicit MemoryStream(std::string_view text) : text_(text) {}
  int64_t read(char* out, int64_t bytes) override {
    bytes = std::min(bytes, static_cast<int64_t>(text_.size()) - at_);
    std::copy_n(text_.data() + at_, bytes, out);
    at_ += bytes;
    return bytes;
  }
  int64_t position() const override { return at_; }

 private:
  std::string_view text_;
  int64_t at_ = 0;
};

std::string random_text(std::mt19937& random, size_t words) {
  std::string text;
  for (size_t i = 0; i < words; ++i) text += kWords[random() % kWords.size()];
  return text;
}

TEST(TextParts, DecodeToTheWholeText) {
  const TemporaryFolder folder;
  std::mt19937 random(5);
  for (const auto& [name, tokenizer] : every_tokenizer(folder)) {
    const auto unknown = tokenizer->id_of("<unk>");
    for (int round = 0; round < 60; ++round) {
      std::string whole;
      std::vector<Token> ids;
      TextState state;
      for (uint32_t part = random() % 4 + 1; part > 0; --part) {
        const std::string text = random_text(random, random() % 5);
        whole += text;
        const auto more = tokenizer->encode_part(text, false, state);
        ids.insert(ids.end(), more.begin(), more.end());
      }
      // Neighbouring unknown tokens join, but not across a border.
      if (unknown && std::ranges::count(ids, *unknown) > 1) continue;
      EXPECT_EQ(tokenizer->decode(ids), tokenizer->decode(tokenizer->encode(whole))) << name << ": " << whole;
    }
  }
}

// The prompt keeps the ids that it has when it is given to generation.
TEST(TextParts, ACompletionGoesOnWithItsPrompt) {
  const TemporaryFolder folder;
  for (const auto& [name, tokenizer] : every_tokenizer(folder)) {
    for (const auto& [prompt, completion] :
         std::vector<std::pair<std::string, std::string>>{{"the river is at", "tention."},
                                                          {"2+2=", "4"},
                                                          {"name: ", "reader"},
                                                          {"name:", " reader"},
                                                          {"", "reader"}}) {
      const auto example = render_completion(*tokenizer, prompt, completion);
      const auto before = tokenizer->encode(prompt, false);
      ASSERT_LT(before.size(), example.tokens.size());
      EXPECT_TRUE(std::equal(before.begin(), before.end(), example.tokens.begin())) << name;
      for (size_t i = 0; i < example.mask.size(); ++i)
        EXPECT_EQ(example.mask[i], i >= before.size() ? 1 : 0) << name;
      std::vector<Token> text = example.tokens;
      if (tokenizer->eos()) text.pop_back();
      EXPECT_EQ(tokenizer->decode(text), tokenizer->decode(tokenizer->encode(prompt + completion)))
          << name << ": " << prompt << "|" << completion;
    }
  }
}

TEST(TextParts, AConversationIsOneText) {
  const TemporaryFolder folder;
  const std::vector<ChatMessage> chat{{"user", "the river?"}, {"assistant", "the mill."}, {"user", "and"}};
  for (const auto& [name, tokenizer] : every_tokenizer(folder)) {
    if (name == "pairs_unknown.model" || tokenizer->id_of("<|im_end|>")) continue;
    auto tokens = render_chat(*tokenizer, chat, "chatml").tokens;
    if (tokenizer->eos()) tokens.pop_back();
    const std::string text =
        "<|im_start|>user\nthe river?<|im_end|>\n<|im_start|>assistant\nthe mill.<|im_end|>\n"
        "<|im_start|>user\nand<|im_end|>\n";
    EXPECT_EQ(tokenizer->decode(tokens), tokenizer->decode(tokenizer->encode(text, false))) << name;
  }
}

// A document of several pieces of each size has the ids that it has as one.
TEST(TextParts, IdsDoNotDependOnWhereADocumentIsCut) {
  const TemporaryFolder folder;
  std::mt19937 random(9);
  std::string run = "a", words, lines, ideographs, spaces;
  for (int i = 0; i < 900; ++i) {
    run += "the"[i % 3 == 2 ? 2 : 0];
    words += i % 40 == 39 ? "mill  " : "river ";
    lines += random_text(random, random() % 9) + "\n";
    ideographs += i % 2 != 0 ? "東" : "京";
    spaces += std::string(random() % 30, ' ') + (i % 50 == 49 ? "\n" : "the");
  }
  int cuts = 0;
  for (const auto& [name, tokenizer] : every_tokenizer(folder))
    for (const std::string& text : {run, std::string(3000, 'a'), words, lines, ideographs, spaces}) {
      const auto whole = tokenizer->encode(text);
      for (const size_t piece : {50, 333, 1000, 2500}) {
        MemoryStream stream(text);
        std::vector<Token> ids;
        int pieces = 0;
        encode_document(stream, *tokenizer, piece, [&](const std::vector<Token>& tokens) {
          ids.insert(ids.end(), tokens.begin(), tokens.end());
          ++pieces;
        });
        EXPECT_EQ(ids, whole) << name << " in pieces of " << piece << ": " << text.substr(0, 60);
        cuts += pieces - 1;
      }
    }
  EXPECT_GT(cuts, 2000);  // most texts can be cut
}

}  // namespace
}  // namespace longreach::data
