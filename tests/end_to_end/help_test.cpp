// Every verb explains itself, before and after its name, and takes -v.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "tests/support/program.h"

namespace longreach::test {
namespace {

std::vector<std::string> verbs_of(const std::string& help) {
  std::vector<std::string> verbs;
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("  ") && line.size() > 2 && line[2] != ' ')
      verbs.push_back(line.substr(2, line.find_first_of(" :", 2) - 2));
  return verbs;
}

TEST(Help, EveryVerbHasIt) {
  const ProgramResult all = run_program({"--help"});
  ASSERT_EQ(all.code, 0);
  const auto verbs = verbs_of(all.out);
  ASSERT_GE(verbs.size(), 8u) << all.out;
  for (const std::string& verb : verbs) {
    SCOPED_TRACE(verb);
    const ProgramResult help = run_program({verb, "--help"});
    EXPECT_EQ(help.code, 0) << help.err;
    EXPECT_NE(help.out.find("-v"), std::string::npos) << help.out;
    EXPECT_EQ(run_program({"help", verb}).out, help.out);
    EXPECT_EQ(help.err, "");
  }
}

TEST(Help, SubcommandsHaveIt) {
  for (const auto& [verb, subcommand] : {std::pair{"data", "fetch"},
                                         {"data", "tokenize"},
                                         {"data", "inspect"},
                                         {"data", "synthesize"},
                                         {"data", "conversations"}}) {
    const ProgramResult help = run_program({verb, subcommand, "--help"});
    EXPECT_EQ(help.code, 0);
    EXPECT_NE(help.out.find(subcommand), std::string::npos) << help.out;
  }
}

TEST(Help, NamesTheProgramAndDefaultsAndFitsTheTerminal) {
  for (const char* verb : {"eval", "generate", "export", "data", "verify", "bench", "plot", "info"}) {
    const ProgramResult help = run_program({verb, "--help"});
    EXPECT_NE(help.out.find(std::string("longreach ") + verb), std::string::npos) << help.out;
  }
  EXPECT_NE(run_program({"generate", "--help"}).out.find("tokens to sample (default: 256)"),
            std::string::npos);
  EXPECT_NE(run_program({"eval", "--help"}).out.find("(default: float32)"), std::string::npos);
  EXPECT_NE(run_program({"train"}).out.find("--dry-run"), std::string::npos);
  const auto widest = [](const std::string& text) {
    size_t width = 0;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) width = std::max(width, line.size());
    return width;
  };
  for (const char* columns : {"100", "70"}) {
    setenv("COLUMNS", columns, 1);
    for (const std::vector<std::string>& words : {std::vector<std::string>{"--help"},
                                                  {"info"},
                                                  {"info", "seer"},
                                                  {"generate", "--help"},
                                                  {"bench", "--help"}})
      EXPECT_LE(widest(run_program(words).out), std::stoul(columns)) << words[0];
  }
  unsetenv("COLUMNS");
}

TEST(Info, SaysWhatAKindCanAndCannotDo) {
  for (const char* kind : {"dense", "nsa", "seer", "lightning"}) {
    const std::string out = run_program({"info", kind}).out;
    for (const char* part : {"can be pre-trained", "generate text", "share a sequence over ranks",
                             "can be exported for transformers"})
      EXPECT_NE(out.find(part), std::string::npos) << part << "\n" << out;
  }
  EXPECT_NE(run_program({"info", "seer"}).out.find("--format gates"), std::string::npos);
}

TEST(Help, VerboseIsTakenAnywhereAndChangesNoOutput) {
  const std::string plain = run_program({"info", "dense"}).out;
  EXPECT_EQ(run_program({"-v", "info", "dense"}).out, plain);
  EXPECT_EQ(run_program({"info", "dense", "--verbose"}).out, plain);
  EXPECT_EQ(run_program({"data", "inspect", "-v", "/nowhere.h5"}).code, 2);
}

}  // namespace
}  // namespace longreach::test
