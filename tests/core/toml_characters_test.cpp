// Characters beyond ASCII belong into strings and comments.
#include "core/toml_characters.h"

#include <gtest/gtest.h>

#include "core/config.h"
#include "core/error.h"

namespace longreach {
namespace {

TEST(TomlCharacters, StandInStringsAndComments) {
  for (const char* text :
       {"a = 1", "# é\na = \"é\" # é", "a = 'é\\'\nb = \"é\\\"é\"", "\"é\" = 1",
        "a = \"\"\"é\n\"é\\\"\"\" é\"\"\"", "a = '''é\n'é''' # é", "a = \"\" # é", "a = \"\"\"\"\"\"\n# é",
        "\xEF\xBB\xBF"
        "a = 1",
        "a = \"open é"})
    EXPECT_EQ(line_of_stray_character(text), std::nullopt) << text;
}

TEST(TomlCharacters, AreNamedByLineElsewhere) {
  for (const auto& [text, line] : {std::pair{"é = 1", 1u},
                                   {"a = 1\nb = \"é\"\nc = é", 3u},
                                   {"a = 'é' é", 1u},
                                   {"# é\n[é]", 2u},
                                   {"a = \"open é\n é", 2u},
                                   {"\xA0", 1u}})
    EXPECT_EQ(line_of_stray_character(text), std::optional<size_t>(line)) << text;
}

TEST(TomlCharacters, AreRefusedBeforeTheParserMeetsThem) {
  try {
    ConfigDocument::from_text("a = 1\nl\xCD\x83 rru = 2\n", "run.toml");
    FAIL() << "a letter that is no ASCII stood in a bare key";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("run.toml:2: not TOML: a character beyond ASCII"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace longreach
