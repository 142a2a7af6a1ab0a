// `longreach data conversations`: lines that training reads, drawn without repetition.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tests/support/program.h"
#include "tests/support/tiny_run.h"

namespace longreach::test {
namespace {

std::set<std::string> answers(const std::string& path) {
  std::set<std::string> all;
  std::istringstream lines(read_text(path));
  for (std::string line; std::getline(lines, line);) {
    const auto messages = nlohmann::json::parse(line)["messages"];
    EXPECT_EQ(messages.size(), 2u);
    EXPECT_EQ(messages[0]["role"], "user");
    EXPECT_EQ(messages[1]["role"], "assistant");
    EXPECT_TRUE(all.insert(messages[1]["content"]).second) << line;
  }
  return all;
}

TEST(Conversations, AreDrawnOnceEach) {
  const TemporaryFolder folder;
  for (int document = 0; document < 3; ++document) {
    std::string text = "Title " + std::to_string(document) + "\n=======\n";
    for (int section = 0; section < 4; ++section)
      text += "\nPart " + std::to_string(section) + "\n------\n\nParagraph " + std::to_string(section) +
              " of document " + std::to_string(document) +
              " says something that takes more than eighty bytes to say.\n";
    folder.write("documents/" + std::to_string(document) + ".rst", text);
  }
  const auto write = [&](const std::string& name, const std::string& skip, const std::string& samples) {
    return run_program({"data", "conversations", folder.path(name), "--from", folder.path("documents"),
                        "--skip", skip, "--samples", samples});
  };
  ASSERT_EQ(write("valid.jsonl", "0", "5").code, 0);
  const ProgramResult result = write("train.jsonl", "5", "7");
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_NE(result.out.find("7 conversations of 12"), std::string::npos) << result.out;
  std::set<std::string> all = answers(folder.path("train.jsonl"));
  EXPECT_EQ(all.size(), 7u);
  all.merge(answers(folder.path("valid.jsonl")));
  EXPECT_EQ(all.size(), 12u);
  ASSERT_EQ(write("again.jsonl", "5", "7").code, 0);
  EXPECT_EQ(read_text(folder.path("again.jsonl")), read_text(folder.path("train.jsonl")));

  EXPECT_EQ(write("train.jsonl", "5", "7").code, 2);
  const ProgramResult many = write("many.jsonl", "6", "7");
  EXPECT_EQ(many.code, 2);
  EXPECT_NE(many.err.find("12 sections can be asked for"), std::string::npos) << many.err;
}

}  // namespace
}  // namespace longreach::test
