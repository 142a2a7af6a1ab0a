// Every kind of the closed list as one layer of a hybrid; alone: matrix_slow_test.cpp.
#include <gtest/gtest.h>

#include "tests/support/program/mechanism_matrix.h"
#include "tests/support/small_config.h"

namespace longreach::test {
namespace {

class Hybrid : public testing::TestWithParam<std::string> {};

TEST_P(Hybrid, DoesEverythingThroughTheProgram) {
  expect_row_of_matrix(make_attention_config(GetParam()), Mix::with_dense);
}

std::string name_of(const testing::TestParamInfo<std::string>& kind) { return kind.param; }
INSTANTIATE_TEST_SUITE_P(Matrix, Hybrid, testing::ValuesIn(attention_kinds()), name_of);

TEST(Matrix, SizesAreSmall) {
  EXPECT_LE(std::get<SlidingConfig>(small_config(SlidingConfig{})).window, 16);
  EXPECT_EQ(std::get<SlidingConfig>(small_config(SlidingConfig{.sinks = 4})).sinks, 1);
  EXPECT_EQ(std::get<LightningConfig>(small_config(LightningConfig{})).chunk, 16)
      << "the least that it allows";
}

}  // namespace
}  // namespace longreach::test
