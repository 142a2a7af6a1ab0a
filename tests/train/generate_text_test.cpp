// Text out of tokens: decoded as a whole, ended by tokens and by texts, of tokens that the tokenizer knows.
#include "train/generate_text.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/support/errors.h"
#include "train/text_stream.h"

namespace longreach {
namespace {

using data::Token;

// Pieces as in SentencePiece: the first loses its space, two of them are halves of a character.
class Pieces : public data::Tokenizer {
 public:
  static constexpr Token kGap = 7, kEnd = 8, kTurn = 9;
  explicit Pieces(bool has_turn = true) : has_turn_(has_turn) {}

  std::vector<Token> encode(std::string_view text, bool) const override {
    if (text.empty()) return {};
    if (text == "one") return {0};
    throw DataError("no such prompt");
  }
  std::string decode(std::span<const Token> tokens) const override {
    std::string out;
    for (const Token id : tokens) {
      check<DataError>(contains(id), "no token has the id ", id);
      out += out.empty() && kPieces[id][0] == ' ' ? kPieces[id] + 1 : kPieces[id];
    }
    return out;
  }
  int64_t vocab_size() const override { return has_turn_ ? 10 : 9; }
  bool contains(Token id) const { return id >= 0 && id < vocab_size() && id != kGap; }
  std::optional<Token> bos() const override { return std::nullopt; }
  std::optional<Token> eos() const override { return kEnd; }
  std::optional<Token> id_of(std::string_view token) const override {
    return has_turn_ && token == kPieces[kTurn] ? std::optional<Token>(kTurn) : std::nullopt;
  }
  std::string name() const override { return "pieces"; }
  std::string fingerprint() const override { return ""; }

 private:
  static constexpr const char* kPieces[] = {" one",   " two", " sm\xC3", "\xA5t", ".<|im",
                                            "_end|>", "_x",   "",        "</s>",  "<|im_end|>"};
  bool has_turn_;
};

// Says the tokens of a chain, one after the other; `wanted` are the logits' favourites after each token.
std::shared_ptr<Transformer> chain(const std::vector<std::vector<int64_t>>& wanted) {
  ModelConfig config;
  config.vocab_size = 16;
  config.hidden_size = 32;
  config.num_hidden_layers = config.num_attention_heads = 1;
  config.tie_word_embeddings = false;
  config.resolve(10);
  auto model = std::make_shared<Transformer>(config, 1);
  const at::NoGradGuard no_grad;
  for (auto& item : model->named_parameters())
    if (item.key().find("norm") == std::string::npos) item.value().zero_();
  const at::Tensor embedding = model->named_parameters()["model.embed_tokens.weight"],
                   head = model->named_parameters()["lm_head.weight"];
  for (int64_t token = 0; token < std::ssize(wanted); ++token) {
    embedding[token][token] = 1.0;
    for (size_t rank = 0; rank < wanted[token].size(); ++rank)
      head[wanted[token][rank]][token] = 10.0 - static_cast<double>(rank);
  }
  return model;
}

struct Spoken {
  std::string text, streamed;
  std::vector<Token> ids;
};

Spoken speak(const std::vector<std::vector<int64_t>>& wanted, const Pieces& tokenizer, TextRequest request) {
  Spoken spoken;
  if (request.prompt.empty()) request.prompt = "one";
  request.sampling.max_new_tokens = 6;
  request.sampling.temperature = 0.0;
  request.on_token = [&](Token id) { spoken.ids.push_back(id); };
  request.on_text = [&](std::string_view piece) { spoken.streamed += piece; };
  spoken.text = generate_text(*chain(wanted), tokenizer, request);
  EXPECT_EQ(spoken.text, spoken.streamed);
  return spoken;
}

using Ids = std::vector<Token>;

TEST(GenerateText, IsTheTextOfAllIds) {
  const Spoken spoken = speak({{1}, {2}, {3}, {0}}, Pieces(), {});
  EXPECT_EQ(spoken.ids, (Ids{1, 2, 3, 0, 1, 2}));
  EXPECT_EQ(spoken.text, "one two sm\xC3\xA5t one two sm\xC3");
}

TEST(GenerateText, EndsWithTheTokensThatEndATextAndDoesNotPrintThem) {
  const Spoken end = speak({{1}, {Pieces::kEnd}}, Pieces(), {});
  EXPECT_EQ(end.ids, (Ids{1, Pieces::kEnd}));
  EXPECT_EQ(end.text, "one two");
  const std::vector<std::vector<int64_t>> turn = {{1}, {Pieces::kTurn}, {}, {}, {}, {}, {}, {}, {}, {1}};
  const Spoken chat = speak(turn, Pieces(), {.chat_template = "chatml"});
  EXPECT_EQ(chat.ids, (Ids{1, Pieces::kTurn}));
  EXPECT_EQ(chat.text, "one two");
  const Spoken other = speak(turn, Pieces(), {.chat_template = "llama3"});
  EXPECT_EQ(other.ids.size(), 6u) << "another template's marker ends nothing";
}

TEST(GenerateText, EndsATurnBySpellingWhereTheMarkerIsNoToken) {
  const Spoken spoken = speak({{1}, {4}, {}, {}, {5}, {0}}, Pieces(false), {.chat_template = "chatml"});
  EXPECT_EQ(spoken.ids, (Ids{1, 4, 5}));
  EXPECT_EQ(spoken.text, "one two.");
}

TEST(GenerateText, StopTextsEndItBeforeThemselvesAndNotInThePrompt) {
  const std::vector<std::vector<int64_t>> wanted = {{1}, {4}, {}, {}, {6}, {}, {0}};
  EXPECT_EQ(speak(wanted, Pieces(), {.stop = {"ne"}}).text, "one two.<|im_x o");
  EXPECT_EQ(speak(wanted, Pieces(), {.stop = {"nowhere", "im_", "<|im_x"}}).text, "one two.");
  EXPECT_EQ(speak(wanted, Pieces(), {.stop = {"im_end"}}).text, "one two.<|im_x one two.<|im");
  test::expect_error<UserError>("stop", [&] { speak(wanted, Pieces(), {.stop = {"x", ""}}); });
}

TEST(GenerateText, DrawsOnlyTokensOfTheTokenizer) {
  // 12 and 15 lie beyond the vocabulary, 7 in a gap of it.
  const Spoken greedy = speak({{15, 12, Pieces::kGap, 1}, {0}}, Pieces(), {});
  EXPECT_EQ(greedy.ids, (Ids{1, 0, 1, 0, 1, 0}));
  TextRequest drawn{.prompt = "one", .sampling = {.max_new_tokens = 400, .temperature = 50.0}};
  drawn.on_token = [](Token id) { EXPECT_TRUE(Pieces().contains(id)) << id; };
  const auto model = chain({{15}});
  for (drawn.sampling.seed = 0; drawn.sampling.seed < 20; ++drawn.sampling.seed)
    EXPECT_NO_THROW(generate_text(*model, Pieces(), drawn));
}

TEST(GenerateText, BeginsAnEmptyPromptWithATokenThatIsNotSeen) {
  TextRequest request{.sampling = {.max_new_tokens = 2, .temperature = 0.0}};
  EXPECT_EQ(generate_text(*chain({{2}, {0}, {}, {}, {}, {}, {}, {}, {1}}), Pieces(), request), "two one");
}

TEST(TextStream, HoldsBackWhatIsNotCertain) {
  std::vector<std::string> pieces;
  const Pieces tokenizer;
  TextStream stream(tokenizer, {0}, {"<|im_end|>"},
                    [&](std::string_view piece) { pieces.emplace_back(piece); });
  for (const Token id : {1, 2, 3, 4, 6}) EXPECT_TRUE(stream.add(id));
  EXPECT_EQ(pieces, (std::vector<std::string>{"one", " two", " sm", "\xC3\xA5t", ".", "<|im_x"}));
  stream.add(2);
  EXPECT_EQ(pieces.back(), " sm");
  stream.finish();
  EXPECT_EQ(pieces.back(), "\xC3");
}

}  // namespace
}  // namespace longreach
