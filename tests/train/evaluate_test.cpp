// Held-out text on several ranks, which have rows of their own or share them: one rank's numbers, by position
// too.
#include "train/evaluate.h"

#include <gtest/gtest.h>

#include "distributed/threads.h"
#include "tests/data/fixtures.h"
#include "tests/support/small_model.h"
#include "train/run_config.h"

namespace longreach {
namespace {

constexpr int64_t kTokens = 200;

RunConfig config_of() {
  RunConfig config;
  config.model = test::small_model();
  config.model.max_position_embeddings = kTokens;
  config.model.attention = {{.layers = "0", .config = LightningConfig{}},
                            {.layers = "1", .config = SlidingConfig{.window = 16, .sinks = 2}}};
  config.model.resolve(256);
  return config;
}

// Documents of many lengths, so that rows are whole, packed, and one is short.
data::ValidLoader loader(bool varlen) {
  std::vector<data::Token> tokens(2900);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<data::Token>(i * i % 61);
  const auto source = std::make_shared<data::testing::MemorySource>(
      tokens, std::vector<int64_t>{0, 700, 701, 1530, 1560, 2900});
  return {{std::make_shared<data::testing::ByteLevel>(), {}, {source}, {}},
          {.seq_len = kTokens, .varlen = varlen}};
}

void expect_same(const Evaluation& found, const Evaluation& one) {
  EXPECT_EQ(found.tokens, one.tokens);
  EXPECT_NEAR(found.nll, one.nll, 1e-6);
  EXPECT_NEAR(found.bits_per_byte, one.bits_per_byte, 1e-6);
  ASSERT_EQ(found.buckets.size(), one.buckets.size());
  for (size_t i = 0; i < one.buckets.size(); ++i) {
    EXPECT_EQ(found.buckets[i].first, one.buckets[i].first);
    EXPECT_EQ(found.buckets[i].tokens, one.buckets[i].tokens);
    EXPECT_NEAR(found.buckets[i].nll, one.buckets[i].nll, 1e-6);
  }
}

TEST(Evaluate, RanksGiveTheNumbersOfOne) {
  const RunConfig config = config_of();
  const auto model = [&] {
    auto made = std::make_shared<Transformer>(config.model, 1);
    made->eval();
    return made;
  };
  struct Read {
    bool varlen;
    int64_t rows, batch_rows;  // of `evaluate`
  };
  for (const Read& read : {Read{true, 0, 2}, {false, 0, 3}, {true, 7, 1}}) {
    const data::ValidLoader text = loader(read.varlen);
    const Evaluation one = evaluate(*model(), text, read.rows, read.batch_rows, {});
    EXPECT_EQ(one.buckets.size(), 9u);  // 0 or 1 to 199, by powers of two
    for (const ParallelDegrees& degrees :
         {ParallelDegrees{.context = 2}, {.shard = 3}, {.shard = 2, .context = 2}})
      run_ranks(static_cast<int>(degrees.shard * degrees.context), [&](const Group& world) {
        const Mesh mesh = make_mesh(world, degrees);
        const auto own = model();
        expect_same(evaluate(*own, text, read.rows, read.batch_rows, {}, nullptr, mesh,
                             context_plan(config, own, mesh)),
                    one);
      });
  }
}

}  // namespace
}  // namespace longreach
