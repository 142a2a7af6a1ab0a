// Which keys are fetched: plans alone, nothing is computed.
#include "layers/attention/common/context/attend_pieces.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "distributed/threads.h"

namespace longreach::test {
namespace {

// Rows that each rank sends.
std::vector<int64_t> rows_sent(const SequenceLayout& layout, const IntervalMask& mask) {
  std::vector<int64_t> sent(static_cast<size_t>(layout.ranks()));
  run_ranks(layout.ranks(), [&](const Group& ranks) {
    const auto context = std::make_shared<const ContextGroup>(ranks, layout);
    sent[static_cast<size_t>(ranks->rank())] = PieceKeys(context, history_of(mask)).exchange()->sent();
  });
  return sent;
}

int64_t sum(const std::vector<int64_t>& values) {
  int64_t total = 0;
  for (const int64_t value : values) total += value;
  return total;
}

TEST(PieceKeys, ShortDocumentsSendLittle) {
  constexpr int32_t kTokens = 65536;
  std::vector<int32_t> bounds{0};
  for (int i = 1; i <= 64; ++i) bounds.push_back(i * 1000);  // none ends where a rank's share does
  bounds.push_back(kTokens);
  for (const Balance balance : {Balance::none, Balance::headtail, Balance::ptrr}) {
    const int64_t many = sum(rows_sent({bounds, 4, 64, balance, causal_pairs}, {})),
                  one = sum(rows_sent({{0, kTokens}, 4, 64, balance, causal_pairs}, {}));
    EXPECT_GT(one, 0);
    EXPECT_LE(static_cast<double>(many), 0.12 * static_cast<double>(one)) << static_cast<int>(balance);
  }
}

TEST(PieceKeys, AWindowSendsWhatItReaches) {
  for (const Balance balance : {Balance::none, Balance::headtail}) {
    const SequenceLayout layout({0, 16384}, 4, 64, balance, causal_pairs);
    const auto sent = rows_sent(layout, {.window = 512});
    // 511 keys before a span, in whole tiles, for each span but the first.
    EXPECT_EQ(sum(sent) % 512, 0);
    EXPECT_LE(sum(sent), 640 * static_cast<int64_t>(layout.spans().size() - 1));
    EXPECT_GT(sum(sent), 0);
  }
}

}  // namespace
}  // namespace longreach::test
