// What a started program gets of us.
#include "core/exec_words.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

namespace longreach {
namespace {

TEST(ExecWords, AdditionsTakeThePlaceOfOlderValues) {
  setenv("LONGREACH_EXEC_WORDS", "old", 1);
  setenv("LONGREACH_EXEC_WORDS_TOO", "kept", 1);
  const auto merged = environment_with({{"LONGREACH_EXEC_WORDS", "new"}, {"LONGREACH_EXEC_OTHER", "a=b"}});
  unsetenv("LONGREACH_EXEC_WORDS");
  unsetenv("LONGREACH_EXEC_WORDS_TOO");
  const auto count = [&](const char* entry) { return std::count(merged.begin(), merged.end(), entry); };
  EXPECT_EQ(count("LONGREACH_EXEC_WORDS=new"), 1);
  EXPECT_EQ(count("LONGREACH_EXEC_WORDS=old"), 0);
  EXPECT_EQ(count("LONGREACH_EXEC_WORDS_TOO=kept"), 1);
  EXPECT_EQ(count("LONGREACH_EXEC_OTHER=a=b"), 1);
}

TEST(ExecWords, PointersEndWithNull) {
  std::vector<std::string> words = {"one", "two"};
  const auto pointers = exec_pointers(words);
  ASSERT_EQ(pointers.size(), 3u);
  EXPECT_STREQ(pointers[1], "two");
  EXPECT_EQ(pointers[2], nullptr);
}

TEST(ExecWords, ThisProgramIsTheTest) { EXPECT_NE(this_program().find("core_test"), std::string::npos); }

}  // namespace
}  // namespace longreach
