// Every kind of the closed list alone in its model; as one layer of a hybrid: matrix_test.cpp.
#include <gtest/gtest.h>

#include "tests/support/program/mechanism_matrix.h"

namespace longreach::test {
namespace {

class Alone : public testing::TestWithParam<std::string> {};

TEST_P(Alone, DoesEverythingThroughTheProgram) {
  expect_row_of_matrix(make_attention_config(GetParam()), Mix::alone);
}

std::string name_of(const testing::TestParamInfo<std::string>& kind) { return kind.param; }
INSTANTIATE_TEST_SUITE_P(Matrix, Alone, testing::ValuesIn(attention_kinds()), name_of);

}  // namespace
}  // namespace longreach::test
