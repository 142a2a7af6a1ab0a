// What ranks must have alike.
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

}  // namespace
}  // namespace longreach
