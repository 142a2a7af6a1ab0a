// Byte n-grams against the formula evaluated by brute force.
#include "data/ngram.h"

#include <cmath>
#include <set>

#include "tests/data/fixtures.h"

namespace longreach::data {
namespace {

using namespace testing;

// p(next | context) straight from the definition, scanning all training documents.
double probability(const std::vector<std::string>& documents, const std::string& context, char next) {
  double total = 0, hits = 0;
  std::set<char> followers;
  for (const auto& document : documents)
    for (size_t i = 0; i + context.size() < document.size(); ++i) {
      if (document.compare(i, context.size(), context) != 0) continue;
      const char follower = document[i + context.size()];
      ++total;
      hits += follower == next;
      followers.insert(follower);
    }
  const double lower = context.empty() ? 1.0 / 256 : probability(documents, context.substr(1), next);
  const auto different = static_cast<double>(followers.size());
  return total == 0 ? lower : (hits + different * lower) / (total + different);
}

TEST(ByteNgram, EqualsBruteForce) {
  const std::vector<std::string> train{"abracadabra, abra", std::string("x\0y\xff\0x\0y", 8), "cadabra", "a",
                                       ""};
  const std::vector<std::string> held{"abra cadabra", std::string("\xff\0x\0q", 5), "zz"};
  for (int order = 0; order <= 6; ++order) {
    ByteNgram model(order);
    for (const auto& document : train) model.add(document, true);
    for (const auto& document : held) {
      double expected = 0;
      for (size_t i = 0; i < document.size(); ++i) {
        const size_t context = std::min<size_t>(i, static_cast<size_t>(order));
        expected -= std::log2(probability(train, document.substr(i - context, context), document[i]));
      }
      EXPECT_NEAR(model.bits(document, true), expected, 1e-9) << "order " << order;
    }
  }
}

TEST(ByteNgram, DoesNotDependOnHowTextIsCut) {
  std::string text;
  for (const Token token : random_tokens(20000, 7, 1)) text += static_cast<char>(token * 31);
  ByteNgram whole(3), pieces(3);
  whole.add(text, true);
  for (size_t at = 0; at < text.size(); at += 13) pieces.add(text.substr(at, 13), at == 0);
  EXPECT_EQ(whole.bits("\0\x1f\x3e", true), pieces.bits("\0\x1f\x3e", true));
  const double at_once = whole.bits(text, true);
  double in_pieces = 0;
  for (size_t at = 0; at < text.size(); at += 7) in_pieces += pieces.bits(text.substr(at, 7), at == 0);
  EXPECT_NEAR(at_once, in_pieces, 1e-6);
}

TEST(ByteNgram, RefusesOrdersItCannotHold) {
  EXPECT_THROW(ByteNgram(7), DataError);
  EXPECT_THROW(ByteNgram(-1), DataError);
}

}  // namespace
}  // namespace longreach::data
