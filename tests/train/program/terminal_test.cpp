// Lines for people are as wide as the terminal.
#include "train/program/terminal.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace longreach {
namespace {

TEST(Terminal, BreaksLinesAtSpacesAndKeepsTheColumn) {
  EXPECT_EQ(wrapped("short\nlines\n", 20), "short\nlines\n");
  EXPECT_EQ(wrapped("one two three four five six", 12), "one two\n    three\n    four\n    five six");
  EXPECT_EQ(wrapped("  -a  what it does and why", 14), "  -a  what it\n      does and\n      why");
  EXPECT_EQ(wrapped("      what it does\n\nx", 15), "      what it\n          does\n\nx");
  EXPECT_EQ(wrapped("# a remark that is long\nkey = 1\n", 12),
            "# a remark\n#   that is\n#   long\nkey = 1\n");
  EXPECT_EQ(wrapped("/a/word/that/is/too/long for it", 10), "/a/word/that/is/too/long\n    for it");
  EXPECT_EQ(wrapped("\xC3\xA9\xC3\xA9\xC3\xA9 \xC3\xA9\xC3\xA9\xC3\xA9", 7),
            "\xC3\xA9\xC3\xA9\xC3\xA9 \xC3\xA9\xC3\xA9\xC3\xA9");
  EXPECT_EQ(wrapped("", 10), "");
}

TEST(Terminal, TheEnvironmentSaysTheWidth) {
  const char* before = std::getenv("COLUMNS");
  const std::string kept = before ? before : "";
  setenv("COLUMNS", "57", 1);
  EXPECT_EQ(terminal_width(), 57);
  setenv("COLUMNS", "3", 1);
  EXPECT_EQ(terminal_width(), 20);
  for (const char* nonsense : {"", "wide", "-4", "80x"}) {
    setenv("COLUMNS", nonsense, 1);
    EXPECT_GE(terminal_width(), 20) << nonsense;
  }
  before ? setenv("COLUMNS", kept.c_str(), 1) : unsetenv("COLUMNS");
}

}  // namespace
}  // namespace longreach
