// select_blocks: the fused kernel against the float64 reference, the rules by hand, packed documents,
// decoding.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <sys/resource.h>

#include <functional>
#include <random>

#include "core/error.h"
#include "layers/ops/cpu/parallel.h"
#include "tests/layers/ops/cpu/cpu_target.h"
#include "tests/layers/ops/selection/cases.h"

namespace longreach::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(SelectBlocks, EveryVisibilityAndVote) {
  for (SelectCase c : {token_rows(), block_rows()})
    for (const Visible visible : kVisible)
      for (const Vote vote : kVotes) {
        c.how.visible = visible, c.how.vote = vote;
        expect_matches(c, at::kFloat);
        expect_matches(c, at::kBFloat16);
      }
}

TEST(SelectBlocks, Logits) {
  SelectCase c = block_rows();
  c.how.softmax = false;
  for (const Vote vote : kVotes)
    for (const Visible visible : kVisible) {
      c.how.vote = vote, c.how.visible = visible;
      expect_matches(c, at::kFloat);
    }
}

TEST(SelectBlocks, HeadsListsAndSizes) {
  for (const auto& [heads, key_heads, lists] : std::vector<std::array<int64_t, 3>>{
           {1, 1, 1}, {6, 6, 6}, {6, 6, 2}, {6, 2, 6}, {6, 1, 3}, {6, 3, 1}, {12, 2, 3}, {80, 1, 1}})
    for (const int64_t size : {3, 64}) {
      SelectCase c = token_rows();
      c.heads = heads, c.key_heads = key_heads, c.lists = lists, c.size = size;
      expect_matches(c, at::kFloat);
    }
}

TEST(SelectBlocks, Rules) {
  for (SelectCase c : {token_rows(), block_rows()})
    for (const SelectionRule& rule : every_rule()) {
      c.rule = rule;
      expect_matches(c, at::kFloat);
    }
}

TEST(SelectBlocks, LengthsAroundTheBlocks) {
  for (const int64_t tokens : {0, 1, 3, 4, 15, 16, 17, 31, 32, 33, 64, 65, 200})
    for (SelectCase c : {token_rows(), block_rows()}) {
      c.geometry.tokens = tokens;
      expect_matches(c, at::kFloat);
    }
}

TEST(SelectBlocks, LargeLogits) {
  for (SelectCase c : {token_rows(), block_rows()}) {
    c.magnitude = 3;
    expect_matches(c, at::kFloat);
    // Most shares are 0 in float32: what float64 tells apart among them decides no threshold.
    c.magnitude = 8;
    c.rule = {.threshold = 0.3};
    expect_matches(c, at::kFloat);
  }
}

TEST(SelectBlocks, RandomShapes) {
  std::mt19937 random(11);
  for (int i = 0; i < 200; ++i) {
    SCOPED_TRACE(i);
    const SelectCase c = random_case(random);
    expect_matches(c, i % 2 == 0 ? at::kFloat : at::kBFloat16);
  }
}

// Equal logits make every visible window's share 1 / n: a block's score times n is its windows' weight.
TEST(SelectBlocks, WindowsWeighOneTwoTwoTwoOneInTheirBlock) {
  const BlockGeometry geometry{.query_block = 1, .key_block = 64, .tokens = 256, .offset = 255};
  const BlockScores how{.visible = Visible::complete, .width = 32, .stride = 16, .partial = false};
  const int64_t windows = 15;  // (256 - 32) / 16 + 1
  const at::Tensor q = at::full({1, 1, 1, 1}, 1.0f), flat = at::zeros({1, windows, 1, 1}, at::kFloat);
  for (const auto select : {&select_blocks, &select_blocks_reference}) {
    // Inside: windows 3..7 touch block 1 with 1, 2, 2, 2, 1 strides; the first and last block lack a side.
    const at::Tensor scores = select(q, flat, 1, how, geometry, {.top_k = 4}, true).scores;
    EXPECT_LE(relative_error(scores.flatten() * 15, at::tensor({7.0f, 8.0f, 8.0f, 7.0f})), 1e-6);
    // Each window alone: all of the softmax on it.
    const std::vector<double> weights{0, 0, 0, 1, 2, 2, 2, 1, 0, 0, 0, 0, 0, 0, 0};
    for (int64_t window = 0; window < windows; ++window) {
      at::Tensor k = flat.clone();
      k.select(1, window).fill_(200.0f);
      const at::Tensor alone = select(q, k, 1, how, geometry, {.top_k = 4}, true).scores;
      EXPECT_NEAR(alone.flatten()[1].item<double>(), weights[window], 1e-6) << window;
    }
  }
}

// Which windows each rule shows, by counting: the share of a visible one is 1 / n.
TEST(SelectBlocks, VisibleWindows) {
  const BlockGeometry geometry{.query_block = 4, .key_block = 4, .tokens = 14};
  const at::Tensor q = at::full({1, 4, 1, 1}, 1.0f), k = at::zeros({1, 4, 1, 1}, at::kFloat);
  const std::vector<std::pair<Visible, std::vector<float>>> wanted{{Visible::started, {1, 2, 3, 4}},
                                                                   {Visible::all, {4, 4, 4, 4}},
                                                                   {Visible::complete, {0, 1, 2, 3}},
                                                                   {Visible::past, {0, 1, 2, 3}}};
  for (const auto select : {&select_blocks, &select_blocks_reference})
    for (const auto& [visible, counts] : wanted) {
      const BlockScores how{.visible = visible, .width = 4, .stride = 4};
      const at::Tensor scores = select(q, k, 1, how, geometry, {.causal = false}, true).scores[0][0];
      for (int64_t row = 0; row < 4; ++row) {
        const auto n = static_cast<int64_t>(counts[row]);
        EXPECT_TRUE(at::equal(scores[row] > 0, at::arange(4) < n)) << row;
        if (n > 0) {
          EXPECT_NEAR(scores[row][0].item<double>(), 1.0 / static_cast<double>(n), 1e-6);
        }
      }
    }
  // A query that ends a window sees it when complete, but not as past.
  const BlockGeometry last{.query_block = 1, .key_block = 4, .tokens = 8, .offset = 7};
  const at::Tensor one = at::full({1, 1, 1, 1}, 1.0f), two = at::zeros({1, 2, 1, 1}, at::kFloat);
  const auto share = [&](Visible visible) {
    const BlockScores how{.visible = visible, .width = 4, .stride = 4};
    return select_blocks(one, two, 1, how, last, {}, true).scores.flatten()[1].item<float>();
  };
  EXPECT_NEAR(share(Visible::complete), 0.5, 1e-6);
  EXPECT_EQ(share(Visible::past), 0.0f);
}

TEST(SelectBlocks, VotesByHand) {
  // Two heads: all of head 0 on block 0, head 1 even over blocks 0 and 1.
  const at::Tensor q = at::tensor({100.0f, 0.0f}).view({1, 1, 2, 1}),
                   k = at::tensor({1.0f, 0.0f}).view({1, 2, 1, 1});
  const BlockGeometry geometry{.query_block = 1, .key_block = 4, .tokens = 8, .offset = 7};
  const auto scores = [&](Vote vote, bool softmax) {
    const BlockScores how{.softmax = softmax, .vote = vote, .scale = 1.0, .width = 4, .stride = 4};
    const at::Tensor map = select_blocks(q, k, 1, how, geometry, {}, true).scores.flatten();
    return std::vector<float>{map[0].item<float>(), map[1].item<float>()};
  };
  EXPECT_THAT(scores(Vote::sum, true), ElementsAre(1.5f, 0.5f));
  EXPECT_THAT(scores(Vote::mean, true), ElementsAre(0.75f, 0.25f));
  EXPECT_THAT(scores(Vote::max, true), ElementsAre(1.0f, 0.5f));
  EXPECT_THAT(scores(Vote::sum, false), ElementsAre(100.0f, 0.0f));
  EXPECT_THAT(scores(Vote::mean, false), ElementsAre(50.0f, 0.0f));
}

TEST(SelectBlocks, PackedDocumentsAreEachAlone) {
  const std::vector<int64_t> lengths{0, 70, 1, 0, 79};
  for (SelectCase c : {token_rows(), block_rows()}) {
    c.geometry.tokens = 150;
    c.geometry.cu_seqlens = bounds({0, 0, 70, 71, 71, 150});
    expect_matches(c, at::kFloat);
    const at::Tensor q = c.q(at::kFloat), k = c.k(at::kFloat);
    const Selection packed = select_blocks(q, k, c.lists, c.how, c.geometry, c.rule, true);
    int64_t row = 0, window = 0;
    for (const int64_t length : lengths) {
      BlockGeometry geometry = c.geometry;
      geometry.cu_seqlens = at::Tensor();
      geometry.tokens = length;
      const int64_t rows = ceil_div(length, geometry.query_block),
                    windows = window_count({c.how.width, c.how.stride, c.how.partial, {}}, length);
      const Selection alone = select_blocks(q.narrow(1, row, rows), k.narrow(1, window, windows), c.lists,
                                            c.how, geometry, c.rule, true);
      EXPECT_TRUE(at::equal(alone.indices, packed.indices.narrow(2, row, rows)));
      EXPECT_TRUE(
          at::equal(alone.scores, packed.scores.narrow(2, row, rows).narrow(3, 0, alone.scores.size(3))));
      row += rows, window += windows;
    }
    EXPECT_EQ(row, q.size(1));
  }
}

TEST(SelectBlocks, TheLastRowsAreThoseOfTheWhole) {
  for (SelectCase c : {token_rows(), block_rows()}) {
    const at::Tensor q = c.q(at::kFloat), k = c.k(at::kFloat);
    const Selection whole = select_blocks(q, k, c.lists, c.how, c.geometry, c.rule, true);
    for (const int64_t skipped : {int64_t{1}, q.size(1) / 2, q.size(1) - 1}) {
      BlockGeometry geometry = c.geometry;
      geometry.offset = skipped * geometry.query_block;
      const int64_t rows = q.size(1) - skipped;
      const Selection last =
          select_blocks(q.narrow(1, skipped, rows), k, c.lists, c.how, geometry, c.rule, true);
      EXPECT_TRUE(at::equal(last.indices, whole.indices.narrow(2, skipped, rows)));
      EXPECT_TRUE(at::equal(last.scores, whole.scores.narrow(2, skipped, rows)));
    }
  }
}

TEST(SelectBlocks, FutureKeysDoNotReachThePast) {
  for (SelectCase c : {token_rows(), block_rows()}) {
    const at::Tensor q = c.q(at::kFloat), k = c.k(at::kFloat), changed = k.clone();
    changed.narrow(1, k.size(1) / 2, k.size(1) - k.size(1) / 2).fill_(30.0f);
    const int64_t rows = k.size(1) / 2 * c.how.stride / c.geometry.query_block;
    const at::Tensor before = select_blocks(q, k, c.lists, c.how, c.geometry, c.rule).indices,
                     after = select_blocks(q, changed, c.lists, c.how, c.geometry, c.rule).indices;
    EXPECT_TRUE(at::equal(before.narrow(2, 0, rows), after.narrow(2, 0, rows)));
    EXPECT_FALSE(at::equal(before, after));
  }
}

TEST(SelectBlocks, ThreadsDoNotChangeBits) {
  const int before = num_threads();
  for (SelectCase c : {token_rows(), block_rows()}) {
    c.geometry.tokens = 1000;
    std::vector<Selection> results;
    for (const int threads : {1, 3}) {
      set_num_threads(threads);
      results.push_back(
          select_blocks(c.q(at::kFloat), c.k(at::kFloat), c.lists, c.how, c.geometry, c.rule, true));
    }
    EXPECT_TRUE(at::equal(results[0].indices, results[1].indices));
    EXPECT_TRUE(at::equal(results[0].scores, results[1].scores));
  }
  set_num_threads(before);
}

// 32768 queries x 4 heads x 512 blocks: a map of scores would take 256 MiB.
TEST(SelectBlocks, KeepsNoMapOfScores) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer holds freed memory back, so that its process grows by more than is in use";
#endif
  const int64_t tokens = 32768;
  const at::Tensor q = normal({1, tokens, 4, 4}, 1, at::kFloat), k = normal({1, 512, 4, 4}, 2, at::kFloat);
  const auto peak_mib = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss / 1024;
  };
  const auto before = peak_mib();
  const BlockGeometry geometry{.query_block = 1, .key_block = 64, .tokens = tokens};
  const Selection chosen = select_blocks(q, k, 4, {}, geometry, {.top_k = 4});
  EXPECT_LE(peak_mib() - before, 40);
  EXPECT_EQ(chosen.indices.numel(), tokens * 4 * 4);
}

TEST(SelectBlocks, StridedInputs) {
  const SelectCase c = token_rows();
  const at::Tensor q = c.q(at::kFloat), k = c.k(at::kFloat);
  const auto turned = [](const at::Tensor& x) { return x.transpose(1, 2).contiguous().transpose(1, 2); };
  const auto wide = [](const at::Tensor& x) { return at::cat({x, x}, 3).narrow(3, x.size(3), x.size(3)); };
  const at::Tensor dense = select_blocks(q, k, 2, c.how, c.geometry, c.rule).indices;
  EXPECT_TRUE(at::equal(dense, select_blocks(turned(q), turned(k), 2, c.how, c.geometry, c.rule).indices));
  EXPECT_TRUE(at::equal(dense, select_blocks(wide(q), wide(k), 2, c.how, c.geometry, c.rule).indices));
}

std::string message(const std::function<void()>& call) {
  try {
    call();
  } catch (const UserError& error) {
    return error.what();
  }
  return {};
}

TEST(SelectBlocks, NanIsAnError) {
  for (const bool softmax : {true, false})
    for (const Vote vote : kVotes) {
      SelectCase c = block_rows();
      c.how.softmax = softmax, c.how.vote = vote;
      const at::Tensor q = c.q(at::kFloat), k = c.k(at::kFloat);
      k[0][3][1][2] = std::numeric_limits<float>::quiet_NaN();
      for (const auto select : {&select_blocks, &select_blocks_reference})
        EXPECT_THAT(message([&] { select(q, k, 2, c.how, c.geometry, c.rule, false); }), HasSubstr("NaN"));
    }
}

TEST_P(CpuTarget, MatchesReferenceAndNoticesNan) {
  std::mt19937 random(12);
  for (int i = 0; i < 30; ++i) {
    SCOPED_TRACE(i);
    expect_matches(random_case(random), i % 3 == 0 ? at::kBFloat16 : at::kFloat);
  }
  const SelectCase c = token_rows();
  const at::Tensor q = c.q(at::kFloat), k = c.k(at::kFloat);
  k[0][3][1][2] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(select_blocks(q, k, 2, c.how, c.geometry, c.rule), DataError);
  const PoolWindows windows{.width = 12, .stride = 5, .partial = false};
  for (const int64_t size : {3, 16, 33}) {
    const at::Tensor x = normal({1, 40, 2, size}, 5, at::kFloat);
    const std::vector<Pool> pools{Pool::max, Pool::mean, Pool::min};
    EXPECT_LE(relative_error(pool_blocks(x, pools, windows), pool_blocks_reference(x, pools, windows)), 1e-6);
  }
}

INSTANTIATE_TEST_SUITE_P(SelectBlocks, CpuTarget, cpu_targets(), cpu_target_name);

TEST(SelectBlocks, BadArguments) {
  const SelectCase c = block_rows();
  const at::Tensor q = c.q(at::kFloat), k = c.k(at::kFloat);
  const auto of = [&](const std::function<void(SelectCase&)>& change, int64_t lists = 2) {
    SelectCase changed = c;
    change(changed);
    return message([&] { select_blocks(q, k, lists, changed.how, changed.geometry, changed.rule); });
  };
  EXPECT_EQ(of([](SelectCase&) {}), "");
  EXPECT_THAT(of([](SelectCase& x) { x.rule.first = 5; }), HasSubstr("6 forced blocks"));
  EXPECT_THAT(of([](SelectCase& x) { x.rule.density = 0.5; }), HasSubstr("both given"));
  EXPECT_THAT(of([](SelectCase& x) { x.rule.top_k = -1; }), HasSubstr("top_k: -1"));
  EXPECT_THAT(of([](SelectCase& x) { x.rule.mass = 1.5; }), HasSubstr("mass: 1.5"));
  EXPECT_THAT(of([](SelectCase& x) { x.rule.threshold = std::nan(""); }), HasSubstr("threshold: NaN"));
  EXPECT_THAT(of([](SelectCase& x) { x.rule.mass = 0.5, x.how.softmax = false; }), HasSubstr("softmax"));
  EXPECT_THAT(of([](SelectCase& x) { x.geometry.offset = -16; }), HasSubstr("offset: -16"));
  EXPECT_THAT(of([](SelectCase& x) { x.geometry.tokens = 100; }), HasSubstr("k: shape"));
  EXPECT_THAT(of([](SelectCase& x) { x.geometry.query_block = 32; }), HasSubstr("q: 21 rows"));
  EXPECT_THAT(of([](SelectCase& x) { x.how.width = 32; }), HasSubstr("stride: 16"));
  EXPECT_THAT(of([](SelectCase&) {}, 3), HasSubstr("lists: 3"));
  EXPECT_THAT(of([](SelectCase& x) { x.geometry.cu_seqlens = bounds({0, 300}); }), HasSubstr("k: shape"));
  EXPECT_THAT(
      message([&] { select_blocks(q.to(at::kDouble), k.to(at::kDouble), 2, c.how, c.geometry, c.rule); }),
      HasSubstr("select_blocks_reference"));
  EXPECT_THROW(select_blocks(q, k, 2, c.how, c.geometry, {.top_k = 1, .latest = 2}), ConfigError);
  EXPECT_THROW(select_blocks(q, k, 2, c.how, c.geometry, {.top_k = 3, .density = 0.5}), ConfigError);
}

}  // namespace
}  // namespace longreach::test
