// Every verb explains itself, before and after its name, and takes -v.
#include <gtest/gtest.h>

#include <sstream>

#include "tests/support/program.h"

namespace longreach::test {
namespace {

std::vector<std::string> verbs_of(const std::string& help) {
  std::vector<std::string> verbs;
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("  ") && line.size() > 2)
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
  for (const auto& [verb, subcommand] :
       {std::pair{"data", "fetch"}, {"data", "tokenize"}, {"data", "inspect"}}) {
    const ProgramResult help = run_program({verb, subcommand, "--help"});
    EXPECT_EQ(help.code, 0);
    EXPECT_NE(help.out.find(subcommand), std::string::npos) << help.out;
  }
}

TEST(Help, VerboseIsTakenAnywhereAndChangesNoOutput) {
  const std::string plain = run_program({"info", "dense"}).out;
  EXPECT_EQ(run_program({"-v", "info", "dense"}).out, plain);
  EXPECT_EQ(run_program({"info", "dense", "--verbose"}).out, plain);
  EXPECT_EQ(run_program({"data", "inspect", "-v", "/nowhere.h5"}).code, 2);
}

}  // namespace
}  // namespace longreach::test
