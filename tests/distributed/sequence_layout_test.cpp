// Every token has one owner, however documents lie; what is sent is what is taken.
#include "distributed/sequence_layout.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "core/error.h"
#include "distributed/fetch_plan.h"

namespace longreach {
namespace {

using Random = std::mt19937_64;

int64_t below(Random& random, int64_t limit) {
  return static_cast<int64_t>(random() % static_cast<uint64_t>(limit));
}

// Documents of 0 to some thousand tokens, many short ones or few long ones; sometimes none with a token.
std::vector<int32_t> drawn_documents(Random& random) {
  const int64_t longest = int64_t{1} << below(random, 13);
  std::vector<int32_t> bounds = {0};
  const int64_t documents = 1 + below(random, 12);
  for (int64_t d = 0; d < documents; ++d)
    bounds.push_back(bounds.back() +
                     static_cast<int32_t>(below(random, 5) == 0 ? 0 : below(random, longest + 1)));
  return bounds;
}

SequenceLayout drawn_layout(Random& random) {
  const int64_t grains[] = {1, 16, 64, 128};
  const Balance balances[] = {Balance::none, Balance::headtail, Balance::ptrr};
  return {drawn_documents(random), static_cast<int>(1 + below(random, 8)), grains[below(random, 4)],
          balances[below(random, 3)], causal_pairs};
}

void expect_pieces(const SequenceLayout& layout, std::vector<int>& owners) {
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    int64_t local = 0;
    for (const Piece& piece : layout.pieces(rank)) {
      ASSERT_EQ(piece.local, local);
      ASSERT_GT(piece.tokens, 0);
      local += piece.tokens;
      for (int64_t t = piece.begin; t < piece.begin + piece.tokens; ++t) ++owners[static_cast<size_t>(t)];
      const Interval document = layout.document_of(piece.begin);
      ASSERT_EQ(piece.history_begin, piece.continued() ? document.begin : piece.begin);
      if (piece.continued()) {
        ASSERT_LE(piece.begin + piece.tokens, document.end);
        ASSERT_TRUE(piece.cu_seqlens.empty());
        continue;
      }
      ASSERT_EQ(document.begin, piece.begin);
      ASSERT_EQ(piece.cu_seqlens.back(), piece.tokens);
      for (size_t d = 0; d + 1 < piece.cu_seqlens.size(); ++d)
        ASSERT_EQ(layout.document_of(piece.begin + piece.cu_seqlens[d]).begin,
                  piece.begin + piece.cu_seqlens[d]);
    }
    ASSERT_EQ(layout.tokens(rank), local);
  }
}

TEST(SequenceLayout, EveryTokenIsOwnedOnce) {
  Random random(1);
  for (int draw = 0; draw < 10'000; ++draw) {
    const SequenceLayout layout = drawn_layout(random);
    std::vector<int> owners(static_cast<size_t>(layout.total()), 0);
    ASSERT_NO_FATAL_FAILURE(expect_pieces(layout, owners)) << draw;
    ASSERT_TRUE(std::all_of(owners.begin(), owners.end(), [](int n) { return n == 1; })) << draw;
  }
}

TEST(SequenceLayout, SpansBeginAtTheGrain) {
  Random random(2);
  for (int draw = 0; draw < 1000; ++draw) {
    const SequenceLayout layout(drawn_documents(random), 4, 64, Balance::ptrr, causal_pairs);
    for (const Span& span : layout.spans())
      ASSERT_EQ((span.begin - layout.document_of(span.begin).begin) % 64, 0) << draw;
  }
}

TEST(SequenceLayout, FewTokensAreNotPadded) {
  const SequenceLayout one({0, 1}, 4, 64, Balance::none, causal_pairs);
  ASSERT_EQ(one.spans().size(), 1u);
  EXPECT_EQ(one.tokens(one.spans()[0].owner), 1);
  const SequenceLayout none({0, 0}, 3, 64, Balance::ptrr, causal_pairs);
  EXPECT_TRUE(none.spans().empty());
  EXPECT_TRUE(none.pieces(1).empty());
  const SequenceLayout across({0, 1000}, 4, 64, Balance::none, causal_pairs);  // one document over four ranks
  for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(across.pieces(rank).size(), 1u);
  EXPECT_EQ(across.pieces(2)[0].history_begin, 0);
}

// The fewest spans a rank that balance: head and tail for one document, more for many of unlike lengths.
TEST(SequenceLayout, SharesOutByCost) {
  for (const int ranks : {2, 4, 8}) {
    const SequenceLayout one({0, 131072}, ranks, 64, Balance::ptrr, causal_pairs);
    EXPECT_LE(one.imbalance(causal_pairs), 1.03);
    EXPECT_EQ(one.spans().size(), static_cast<size_t>(2 * ranks));
    const SequenceLayout contiguous({0, 131072}, ranks, 64, Balance::none, causal_pairs);
    EXPECT_NEAR(contiguous.imbalance(causal_pairs), 2.0 - 1.0 / ranks, 1e-2);
  }
}

// Of rows packed with documents of drawn lengths, short rows and long ones: pairs within 3 %, and tokens,
// which are memory, within a half.
TEST(SequenceLayout, SharesOutPackedRowsWithinThreePercent) {
  Random random(3);
  for (const int32_t total : {8192, 32768, 131072})
    for (const int64_t longest : {400, 4000, 20000})
      for (const int ranks : {2, 4, 8})
        for (int draw = 0; draw < 20; ++draw) {
          std::vector<int32_t> bounds = {0};
          while (bounds.back() < total)
            bounds.push_back(
                std::min<int32_t>(total, bounds.back() + 1 + static_cast<int32_t>(below(random, longest))));
          const SequenceLayout layout(bounds, ranks, 64, Balance::ptrr, causal_pairs);
          ASSERT_LE(layout.imbalance(causal_pairs), 1.03) << total << ", " << longest << ", " << ranks;
          for (int rank = 0; rank < ranks; ++rank) ASSERT_LE(layout.tokens(rank) * ranks, total * 3 / 2);
        }
}

// A layout that cost does not balance is measured by it: four queries of one document see 1, 2, 3, 4 keys.
TEST(SequenceLayout, ImbalanceIsTheDearestRankOverTheMean) {
  const SequenceLayout layout({0, 4}, 2, 2, Balance::none, causal_pairs);
  EXPECT_DOUBLE_EQ(layout.imbalance(causal_pairs), 7.0 / 5.0);
  EXPECT_DOUBLE_EQ(layout.imbalance([](int64_t tokens) { return 3.0 * static_cast<double>(tokens); }), 1.0);
}

// Windows of 6 tokens every 2: complete after 6, 8, 10, ... tokens of each document.
TEST(SequenceLayout, CountsWindowsWhereTheyEnd) {
  const SequenceLayout layout({0, 20, 23, 30}, 2, 4, Balance::none, causal_pairs);
  const SequenceLayout windows = layout.counted([](int64_t n) { return n < 6 ? 0 : (n - 6) / 2 + 1; });
  EXPECT_EQ(windows.cu_seqlens(), (std::vector<int32_t>{0, 8, 8, 9}));
  EXPECT_EQ(layout.owned(0), (std::vector<Interval>{{0, 16}}));
  EXPECT_EQ(windows.tokens(0), 6);
  EXPECT_EQ(windows.tokens(1), 3);
}

TEST(SequenceLayout, CountsBlocksAndMergesRanks) {
  Random random(4);
  for (int draw = 0; draw < 1000; ++draw) {
    const SequenceLayout layout(drawn_documents(random), 4, 64, Balance::ptrr, causal_pairs);
    const SequenceLayout blocks = layout.blocks(16);
    for (int rank = 0; rank < 4; ++rank) {
      int64_t expected = 0;
      for (const Piece& piece : layout.pieces(rank)) {
        if (piece.continued()) expected += (piece.tokens + 15) / 16;
        for (size_t d = 0; d + 1 < piece.cu_seqlens.size(); ++d)
          expected += (piece.cu_seqlens[d + 1] - piece.cu_seqlens[d] + 15) / 16;
      }
      ASSERT_EQ(blocks.tokens(rank), expected) << draw;
    }
    ASSERT_EQ(layout.merged(2).tokens(0), layout.tokens(0) + layout.tokens(1));
  }
  EXPECT_THROW(SequenceLayout({0, 100}, 2, 64, Balance::none, causal_pairs).blocks(48), ShapeError);
}

// What two neighbours have of the front and of the back is one span each, or one for both.
TEST(SequenceLayout, MergedSpansThatTouchAreOne) {
  const SequenceLayout layout({0, 512}, 4, 64, Balance::headtail, causal_pairs);
  ASSERT_EQ(layout.spans().size(), 8u);
  const SequenceLayout pairs = layout.merged(2), one = layout.merged(4);
  EXPECT_EQ(pairs.spans().size(), 3u);
  EXPECT_EQ(pairs.owned(0), (std::vector<Interval>{{0, 128}, {384, 512}}));
  EXPECT_EQ(one.owned(0), (std::vector<Interval>{{0, 512}}));
}

TEST(SequenceLayout, RefusesBoundsThatAreNone) {
  EXPECT_THROW(SequenceLayout({}, 2, 64, Balance::none, causal_pairs), ShapeError);
  EXPECT_THROW(SequenceLayout({1, 5}, 2, 64, Balance::none, causal_pairs), ShapeError);
  EXPECT_THROW(SequenceLayout({0, 5, 3}, 2, 64, Balance::none, causal_pairs), ShapeError);
  EXPECT_THROW(SequenceLayout({0, 5}, 0, 64, Balance::none, causal_pairs), ShapeError);
}

// The exchange by hand: every rank gets the numbers of the tokens it wanted, in its order.
TEST(FetchPlan, BringsWhatIsWanted) {
  Random random(5);
  for (int draw = 0; draw < 1000; ++draw) {
    const SequenceLayout layout = drawn_layout(random);
    std::vector<std::vector<Interval>> wants(static_cast<size_t>(layout.ranks()));
    for (auto& of_rank : wants)
      for (int64_t i = below(random, 4); i > 0 && layout.total() > 0; --i) {
        const int64_t begin = below(random, layout.total());
        of_rank.push_back({begin, begin + below(random, layout.total() - begin + 1)});
      }
    std::vector<FetchPlan> plans;
    for (int rank = 0; rank < layout.ranks(); ++rank)
      plans.push_back(plan_fetch(layout, rank, [&](int r) { return wants[static_cast<size_t>(r)]; }));
    for (int to = 0; to < layout.ranks(); ++to) {
      const FetchPlan& plan = plans[static_cast<size_t>(to)];
      std::vector<int64_t> arrived, taken, expected;
      for (int from = 0; from < layout.ranks(); ++from) {
        ASSERT_EQ(plans[static_cast<size_t>(from)].send_rows[static_cast<size_t>(to)],
                  plan.receive_rows[static_cast<size_t>(from)]);
        std::vector<int64_t> own;
        for (const Interval& span : layout.owned(from))
          for (int64_t t = span.begin; t < span.end; ++t) own.push_back(t);
        for (const Interval& rows : plans[static_cast<size_t>(from)].send[static_cast<size_t>(to)])
          arrived.insert(arrived.end(), own.begin() + rows.begin, own.begin() + rows.end);
      }
      for (const Interval& rows : plan.take)
        taken.insert(taken.end(), arrived.begin() + rows.begin, arrived.begin() + rows.end);
      for (const Interval& interval : wants[static_cast<size_t>(to)])
        for (int64_t t = interval.begin; t < interval.end; ++t) expected.push_back(t);
      ASSERT_EQ(taken, expected) << draw;
      ASSERT_EQ(plan.wanted, static_cast<int64_t>(expected.size()));
    }
  }
}

TEST(FetchPlan, RefusesTokensThatAreNone) {
  const SequenceLayout layout({0, 100}, 2, 64, Balance::none, causal_pairs);
  EXPECT_THROW(plan_fetch(layout, 0, [](int) { return std::vector<Interval>{{90, 101}}; }), ShapeError);
}

}  // namespace
}  // namespace longreach
