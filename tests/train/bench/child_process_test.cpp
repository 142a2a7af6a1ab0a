// Programs started without a shell.
#include "train/bench/child_process.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace longreach::bench {
namespace {

TEST(ChildProcess, AnswersLineByLine) {
  ChildProcess cat({"cat"});
  std::string line;
  cat.write_line("one");
  ASSERT_TRUE(cat.read_line(line));
  EXPECT_EQ(line, "one");
  cat.write_line(std::string(100000, 'x'));
  ASSERT_TRUE(cat.read_line(line));
  EXPECT_EQ(line.size(), 100000U);
  EXPECT_EQ(cat.wait(), 0);
}

TEST(ChildProcess, TellsHowItEnded) {
  EXPECT_EQ(ChildProcess({"sh", "-c", "exit 7"}).wait(), 7);
  EXPECT_EQ(ChildProcess({"sh", "-c", "kill -9 $$"}).wait(), 128 + 9);
}

TEST(ChildProcess, SettingsReplaceOurs) {
  ChildProcess shell({"sh", "-c", "echo $HOME $ADDED"}, {{"HOME", "/nowhere"}, {"ADDED", "too"}});
  std::string line;
  ASSERT_TRUE(shell.read_line(line));
  EXPECT_EQ(line, "/nowhere too");
  EXPECT_FALSE(shell.read_line(line));
}

TEST(ChildProcess, AMissingProgramIsAnError) {
  EXPECT_THROW(ChildProcess({"longreach-has-no-such-program"}), Error);
}

TEST(ChildProcess, WritingToOneThatIsGoneIsAnError) {
  ChildProcess gone({"true"});
  std::string line;
  EXPECT_FALSE(gone.read_line(line));
  // Its end of the pipe may close a moment after its output does.
  const auto write_until_refused = [&] {
    for (;;) gone.write_line("hello");
  };
  EXPECT_THROW(write_until_refused(), Error);
}

}  // namespace
}  // namespace longreach::bench
