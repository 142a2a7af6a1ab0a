// Sections of reStructuredText, and what is asked about them.
#include "data/synthetic/sections.h"

#include <gtest/gtest.h>

#include <set>

namespace longreach::data {
namespace {

constexpr const char* kDocument =
    ".. SPDX-License-Identifier: GPL-2.0\n"
    "\n"
    "=============\n"
    "The Sleeper\n"
    "=============\n"
    "\n"
    "The first paragraph below the title belongs to no section, however long it may be and whatever it "
    "says.\n"
    "\n"
    "How to sleep\n"
    "------------\n"
    "\n"
    "Call ``msleep()`` from a *context* that may sleep; see :c:func:`usleep_range`\n"
    "and `the guide <http://there>`_ for shorter times, which need other timers.\n"
    "\n"
    "A second paragraph is left out.\n"
    "\n"
    "Lists\n"
    "-----\n"
    "- an item of a list is no prose, even one that goes on for eighty characters and ends with a stop.\n"
    "\n"
    "Code\n"
    "----\n"
    "What follows is code, so this paragraph of more than eighty characters is not taken either::\n"
    "\n"
    "    msleep(20);\n"
    "\n"
    "Short\n"
    "-----\n"
    "Too short.\n"
    "\n"
    "Nothing below\n"
    "-------------\n";

TEST(Sections, AreHeadingsWithAParagraphOfProse) {
  const auto sections = sections_of(kDocument);
  ASSERT_EQ(sections.size(), 1u);
  EXPECT_EQ(sections[0].document, "The Sleeper");
  EXPECT_EQ(sections[0].heading, "How to sleep");
  EXPECT_EQ(sections[0].paragraph,
            "Call msleep() from a context that may sleep; see usleep_range and the guide for shorter times, "
            "which need "
            "other timers.");
}

TEST(Sections, OddDocumentsHaveNone) {
  for (const char* document : {"", "\n\n", "====\n====\n", "Title\n=====", "=====", "a\n===\nb\n===\n===\n"})
    EXPECT_TRUE(sections_of(document).empty()) << document;
}

TEST(Sections, QuestionsNameDocumentAndHeading) {
  const Section section{"The Sleeper", "How to sleep", "Call msleep()."};
  std::set<std::string> questions;
  for (uint64_t draw = 0; draw < 8; ++draw) {
    const Exchange exchange = exchange_of(section, draw);
    EXPECT_NE(exchange.question.find("\"The Sleeper\""), std::string::npos);
    EXPECT_NE(exchange.question.find("\"How to sleep\""), std::string::npos);
    EXPECT_EQ(exchange.answer, "Call msleep().");
    questions.insert(exchange.question);
  }
  EXPECT_EQ(questions.size(), 4u);
}

}  // namespace
}  // namespace longreach::data
