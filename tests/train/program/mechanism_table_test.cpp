// README's table of mechanisms is the one that the program prints.
#include "train/program/mechanism_table.h"

#include <gtest/gtest.h>

#include "layers/attention/mechanisms.h"
#include "tests/support/program.h"

namespace longreach {
namespace {

TEST(MechanismTable, IsReadmes) {
  const std::string readme = test::read_text(LONGREACH_SOURCE_DIR "/README.md");
  const std::string begin = "<!-- longreach info --table -->\n", end = "<!-- end of the table -->";
  const size_t first = readme.find(begin);
  ASSERT_NE(first, std::string::npos);
  const size_t table = first + begin.size(), last = readme.find(end, table);
  ASSERT_NE(last, std::string::npos);
  EXPECT_EQ(readme.substr(table, last - table), mechanism_table())
      << "`longreach info --table` prints what belongs there";
}

TEST(MechanismTable, HoldsEveryKindOnce) {
  const std::string table = mechanism_table();
  for (const std::string& kind : attention_kinds()) {
    const std::string row = "| [" + kind + "](layers/attention/" + kind + "/README.md)";
    const size_t first = table.find(row);
    ASSERT_NE(first, std::string::npos) << kind;
    EXPECT_EQ(table.find(row, first + 1), std::string::npos) << kind;
  }
}

TEST(MechanismTable, SaysWhatModelsAreElsewhere) {
  const std::string table = mechanism_table();
  for (const char* cell :
       {"| llama, qwen2, qwen3, minimax, minicpm_sala, gguf, [longreach](layers/attention/dense/",
        "| gates, [longreach](layers/attention/seer/", "| nsa, [longreach](layers/attention/nsa/"})
    EXPECT_NE(table.find(cell), std::string::npos) << cell;
}

TEST(MechanismTable, CellsAreFilesThatExist) {
  const std::string table = mechanism_table();
  EXPECT_NE(table.find("(layers/attention/dense/reference.cpp)"), std::string::npos);
  for (size_t at = table.find("]("); at != std::string::npos; at = table.find("](", at + 1)) {
    const std::string path = table.substr(at + 2, table.find(')', at) - at - 2);
    EXPECT_TRUE(std::filesystem::exists(LONGREACH_SOURCE_DIR "/" + path)) << path;
  }
}

}  // namespace
}  // namespace longreach
