// Damaged token stores by the hundred: none crashes, hangs, or is read as something else.
#include "tests/data/corpora/stores.h"

namespace longreach::data {
namespace {

TEST(TokenStore, SurvivesDamageThatItsChecksumsHideManyTimes) { testing::expect_damage_is_survived(400, 14); }

}  // namespace
}  // namespace longreach::data
