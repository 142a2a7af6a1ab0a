// What ranks must have alike, and what they tell each other between steps.
#include "train/ranks.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "distributed/threads.h"
#include "tests/support/errors.h"

namespace longreach {
namespace {

TEST(Ranks, TheFirstThatDiffersIsNamedOnAll) {
  run_ranks(3, [](const Group& world) {
    const int me = world->rank();
    const Ranks ranks{.environment = {.rank = me, .world = 3}, .mesh = {.world = world}};
    EXPECT_NO_THROW(expect_same_on_all(ranks, "longreach 1\nLibTorch 2", "their versions"));
    test::expect_error<ConfigError>(
        "ranks differ in their versions: rank 0 has LibTorch 2, rank 2 has LibTorch 3", [&] {
          expect_same_on_all(ranks, text("longreach 1\nLibTorch ", me == 2 ? 3 : 2), "their versions");
        });
  });
}

// Heads that queries share count once; lightning's have keys of their own.
TEST(Ranks, ARankWithoutAHeadIsRefused) {
  const auto with = [](const std::string& kind, const std::string& method) {
    return parse_run_config(
        "[model]\nnum_attention_heads = 4\nnum_key_value_heads = 2\n"
        "[[model.attention]]\nkind = \"" +
            kind + "\"\n[data]\ntrain = [\"x.txt\"]\n[parallel]\n" + "context_parallel_method = \"" + method +
            "\"\n",
        "run.toml");
  };
  EXPECT_NO_THROW(expect_heads_for_all(with("dense", "heads"), 2));
  EXPECT_NO_THROW(expect_heads_for_all(with("dense", "fetch"), 4));
  EXPECT_NO_THROW(expect_heads_for_all(with("lightning", "heads"), 4));
  test::expect_error<ConfigError>(
      "parallel.context_parallel_method = \"heads\": `dense` has 2 key heads for "
      "parallel.context_parallel_degree = 4, expected at least one for each rank",
      [&] { expect_heads_for_all(with("dense", "heads"), 4); });
}

TEST(Ranks, OneThatSavesIsKnownToAll) {
  run_ranks(3, [](const Group& world) {
    const int me = world->rank();
    const Ranks ranks{.environment = {.rank = me, .world = 3}, .mesh = {.world = world}};
    for (const int saving : {0, 1, 2}) EXPECT_TRUE(agree_on_step(ranks, me == saving).saving);
    const StepAgreement agreement = agree_on_step(ranks, false);
    EXPECT_FALSE(agreement.saving);
    EXPECT_EQ(agreement.signal, 0);
  });
}

}  // namespace
}  // namespace longreach
