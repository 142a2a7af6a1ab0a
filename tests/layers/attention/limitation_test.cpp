// What a config says of itself is what is refused, and nothing else is.
#include "layers/attention/limitation.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "layers/attention/mechanisms.h"

namespace longreach {
namespace {

struct Unlimited {};
struct Limited {
  bool bidirectional = true;
  std::vector<Limitation> limitations() const {
    if (!bidirectional) return {};
    return {{Ability::decoding, "it looks ahead"}, {Ability::context_parallel, "it folds the row"}};
  }
};

std::string refusal(const std::vector<Limitation>& limitations, Ability ability,
                    const char* asked = "generate") {
  try {
    expect_ability("mirror", limitations, ability, asked);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(Limitation, IsRefusedWithItsReason) {
  EXPECT_EQ(refusal(limitations_of(Limited{}), Ability::decoding),
            "generate: `mirror` cannot generate text: it looks ahead");
  EXPECT_EQ(
      refusal(limitations_of(Limited{}), Ability::context_parallel, "parallel.context_parallel_degree"),
      "parallel.context_parallel_degree: `mirror` cannot share a sequence over ranks (context parallel): it "
      "folds the row");
  EXPECT_EQ(refusal(limitations_of(Limited{}), Ability::bfloat16), "");
  EXPECT_EQ(refusal(limitations_of(Limited{false}), Ability::decoding), "");
  EXPECT_EQ(refusal(limitations_of(Unlimited{}), Ability::decoding), "");
}

TEST(Limitation, EveryKindGivesItsReasons) {
  for (const AttentionConfig& config : all_attention_configs())
    for (const Limitation& limitation : limitations_of(config)) EXPECT_FALSE(limitation.reason.empty());
}

}  // namespace
}  // namespace longreach
