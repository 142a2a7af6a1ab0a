// Samples of the synthetic tasks: as long as was asked, the fact where it was asked for, once, and the same
// everywhere.
#include "data/synthetic/sample.h"

#include <gmock/gmock.h>

#include "data/common/fingerprint.h"
#include "tests/data/fixtures.h"

namespace longreach::data {
namespace {

using namespace testing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

// Byte-level BPE, BPE with byte fallback, and Unigram.
std::vector<std::string> tokenizers() {
  const std::string folder = std::string(LONGREACH_SOURCE_DIR) + "/tests/data/files/";
  return {"bytes", folder + "bpe_smollm.json", folder + "bpe_llama2.json", folder + "unigram_rules.model"};
}

size_t count_of(const std::string& words, const std::string& text) {
  size_t count = 0;
  for (size_t at = 0; (at = text.find(words, at)) != std::string::npos; at += words.size()) ++count;
  return count;
}

int64_t tokens_of(const std::string& text, const Tokenizer& tokenizer) {
  return std::ssize(tokenizer.encode(text));
}

std::string digits_of(const std::string& answer) { return answer.substr(1); }

TEST(Synthetic, PasskeyHasTheWordsOfItsAuthors) {
  const auto bytes = load_tokenizer("bytes");
  const SyntheticSample sample =
      synthesize({.task = "passkey", .length = 700, .depth = 0.5}, Haystack::repeated(*bytes), *bytes);
  const std::string key = digits_of(sample.answer);
  EXPECT_THAT(key, MatchesRegex("[1-9][0-9][0-9][0-9][0-9]"));
  EXPECT_EQ(sample.prompt, sample.request + " The pass key is");
  EXPECT_TRUE(
      sample.request.starts_with("There is an important info hidden inside a lot of irrelevant text. Find it "
                                 "and memorize them. I will quiz "
                                 "you about the important information there.\n"));
  EXPECT_THAT(sample.request,
              HasSubstr("\nThe pass key is " + key + ". Remember it. " + key + " is the pass key.\n"));
  EXPECT_TRUE(sample.request.ends_with(".\nWhat is the pass key?"));
}

// One more sentence would be too much; the longest of the noise is the bound.
TEST(Synthetic, SamplesAreAsLongAsAskedButForASentence) {
  for (const std::string& spec : tokenizers()) {
    const auto tokenizer = load_tokenizer(spec);
    const Haystack noise = Haystack::repeated(*tokenizer);
    int64_t longest = 0;
    for (int64_t i = 0; i < noise.size(); ++i) longest = std::max(longest, noise.tokens(i, 1) + 1);
    for (const std::string task : {"passkey", "niah"})
      for (const int64_t length : {600, 1024, 5000})
        for (const double depth : {0.0, 0.3, 1.0}) {
          const SyntheticSample sample = synthesize(
              {.task = task, .length = length, .reply_tokens = 32, .depth = depth}, noise, *tokenizer);
          SCOPED_TRACE(text(spec, " ", task, " ", length, " at ", depth));
          EXPECT_EQ(sample.tokens, tokens_of(sample.prompt, *tokenizer));
          EXPECT_LE(sample.tokens + 32, length);
          EXPECT_GT(sample.tokens + 32 + longest, length);
        }
  }
}

TEST(Synthetic, TheFactStandsOnceAtItsDepth) {
  for (const std::string& spec : tokenizers()) {
    const auto tokenizer = load_tokenizer(spec);
    const Haystack noise = Haystack::repeated(*tokenizer);
    for (const std::string task : {"passkey", "niah"})
      for (const double depth : {0.0, 0.25, 0.5, 0.9, 1.0}) {
        SCOPED_TRACE(text(spec, " ", task, " at ", depth));
        const SyntheticSample sample =
            synthesize({.task = task, .length = 3000, .depth = depth}, noise, *tokenizer);
        const std::string answer = digits_of(sample.answer);
        EXPECT_EQ(count_of(answer, sample.prompt), task == "passkey" ? 2u : 1u);
        const std::string fact =
            task == "passkey" ? "The pass key is " + answer : "One of the special magic numbers";
        EXPECT_EQ(count_of(fact, sample.prompt), 1u);
        EXPECT_NEAR(sample.depth, depth, 0.01);
        if (depth == 0.0 || depth == 1.0) EXPECT_EQ(sample.depth, depth);
        // Counted from the text alone: words, since the noise is alike everywhere.
        const size_t from = sample.request.find('\n') + 1, to = sample.request.rfind('\n');
        const double place = static_cast<double>(sample.request.find(fact) - from);
        EXPECT_NEAR(place / static_cast<double>(to - from), depth, 0.06);
      }
  }
}

TEST(Synthetic, IsAFunctionOfSeedAndPlaceAlone) {
  const auto bytes = load_tokenizer("bytes");
  const Haystack noise = Haystack::repeated(*bytes);
  const auto sample = [&](SampleOptions options) { return synthesize(options, noise, *bytes); };
  const SampleOptions options{.task = "niah", .length = 900, .depth = 0.5, .seed = 3, .sample = 1};
  EXPECT_EQ(sample(options).prompt, sample(options).prompt);
  std::vector<std::string> answers{sample(options).answer};
  for (const auto& change : std::vector<std::function<void(SampleOptions&)>>{
           [](SampleOptions& o) { o.seed = 4; }, [](SampleOptions& o) { o.sample = 2; },
           [](SampleOptions& o) { o.depth = 0.25; }, [](SampleOptions& o) { o.length = 1000; }}) {
    SampleOptions other = options;
    change(other);
    answers.push_back(sample(other).answer);
  }
  EXPECT_EQ(std::set<std::string>(answers.begin(), answers.end()).size(), answers.size());
  std::string all;
  for (const std::string& task : synthetic_tasks()) {
    SampleOptions other = options;
    other.task = task;
    all += sample(other).prompt + sample(other).answer + "\n";
  }
  EXPECT_EQ(hash_hex(all), "73f9991ef1115507");
}

TEST(Synthetic, HidesNeedlesInTextsOfOnesOwn) {
  EXPECT_THAT(sentences_of("One  two.\tThree!\n\nfour\nIs it 3.5? Yes"),
              ElementsAre("One two.", "Three!", "four", "Is it 3.5?", "Yes"));
  std::string long_line;
  for (int i = 0; i < 200; ++i) long_line += "word ";
  const auto cut = sentences_of(long_line);
  ASSERT_EQ(cut.size(), 3u);
  EXPECT_LE(cut[0].size(), 410u);
  const TemporaryFolder folder;
  const auto bytes = load_tokenizer("bytes");
  const Haystack own =
      Haystack::of_file(folder.write("own.txt", "It was night. Was it dark? It was.\nSo the end"), *bytes);
  EXPECT_EQ(own.size(), 4);
  EXPECT_EQ(own.text(2, 4), "It was. So the end It was night. Was it dark?");
  EXPECT_EQ(own.tokens(2, 4), own.tokens(0, 4));
  EXPECT_EQ(own.tokens(3, 6), std::ssize(" So the end" + own.text(0, 5)) + 1);
  const SyntheticSample sample = synthesize({.task = "niah", .length = 2000, .depth = 0.5}, own, *bytes);
  EXPECT_THAT(sample.request, HasSubstr("Was it dark?"));
  EXPECT_GT(sample.tokens, 1900);
  EXPECT_NEAR(sample.depth, 0.5, 0.02);
  const std::string empty = folder.write("empty.txt", " \n");
  EXPECT_EQ(error_of([&] { Haystack::of_file(empty, *bytes); }),
            empty + ": holds no text to hide a needle in");
}

TEST(Synthetic, CopiesAreAsLongAsAsked) {
  const auto bytes = load_tokenizer("bytes");
  const SyntheticSample sample =
      synthesize({.task = "copy", .length = 1000}, Haystack::repeated(*bytes), *bytes);
  const int64_t used = sample.tokens + std::ssize(sample.answer) + 1;
  EXPECT_LE(used, 1000);
  EXPECT_GT(used + 2 * 8, 1000);  // "feather" twice, with its space
  EXPECT_THAT(sample.prompt, HasSubstr("\n" + sample.answer.substr(1) + " The words are:"));
}

TEST(Synthetic, GoesThroughTheFormOfAPrompt) {
  const auto bytes = load_tokenizer("bytes");
  const Haystack noise = Haystack::repeated(*bytes);
  const auto turns = [](const std::string& request, const std::string& beginning) {
    return "<user>" + request + "</user><reply>" + beginning;
  };
  const SyntheticSample sample =
      synthesize({.task = "niah", .length = 1200, .depth = 0.25}, noise, *bytes, turns);
  EXPECT_EQ(sample.prompt, turns(sample.request, sample.beginning));
  EXPECT_LE(sample.tokens + 9, 1200);
  EXPECT_NEAR(sample.depth, 0.25, 0.02);
  EXPECT_THAT(error_of([&] {
                synthesize({.task = "niah", .length = 1200}, noise, *bytes,
                           [](const std::string&, const std::string& beginning) { return beginning; });
              }),
              HasSubstr("does not write what the user says as it is"));
}

TEST(Synthetic, RefusesWhatCannotBe) {
  const auto bytes = load_tokenizer("bytes");
  const Haystack noise = Haystack::repeated(*bytes);
  EXPECT_EQ(error_of([&] { synthesize({.task = "passkeys", .length = 900}, noise, *bytes); }),
            "task `passkeys`, allowed: passkey, niah, copy, did you mean `passkey`?");
  const std::string message = error_of([&] { synthesize({.task = "passkey", .length = 50}, noise, *bytes); });
  EXPECT_THAT(message,
              HasSubstr("length 50: too short for passkey, of which the shortest sample here takes 2"));
  // Which sentence stands there depends on the length; the noise has none of more than 24 bytes.
  const int64_t shortest = std::stoll(message.substr(message.find("takes ") + 6));
  EXPECT_LE(synthesize({.task = "passkey", .length = shortest + 24}, noise, *bytes).tokens, shortest + 24);
  EXPECT_THAT(error_of([&] { synthesize({.task = "passkey", .length = shortest - 24}, noise, *bytes); }),
              HasSubstr("too short"));
}

}  // namespace
}  // namespace longreach::data
