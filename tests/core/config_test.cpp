// Strict TOML: types, ranges, unknown keys, overrides, printing back.
#include "core/config.h"

#include <gtest/gtest.h>

#include "core/temporary_folder.h"
#include "core/utf8.h"

namespace longreach {
namespace {

struct Inner {
  int64_t size = 3;
  std::string mode = "a";
  void fields(FieldVisitor& visit) {
    visit.field("size", size, {.help = "a size", .allowed = at_least(1)});
    visit.field("mode", mode, {.help = "a mode", .allowed = one_of({"alpha", "a"})});
  }
};

struct Outer {
  double rate = 0.5;
  bool on = false;
  std::vector<std::string> files;
  Inner inner;
  std::vector<Inner> items;
  void fields(FieldVisitor& visit) {
    visit.field("rate", rate, {.help = "a rate", .allowed = real_between(0, 1)});
    visit.field("on", on, {.help = "a switch"});
    visit.field("files", files, {.help = "files"});
    visit.section("inner", "a section", fields_of(inner));
    visit.tables(
        "item", "tables", [&](FieldVisitor& v) { items.emplace_back().fields(v); }, items.size(),
        [&](size_t i, FieldVisitor& v) { items[i].fields(v); });
  }
};

std::string error_of(const std::string& toml,
                     const std::vector<std::pair<std::string, std::string>>& overrides = {}) {
  try {
    auto document = ConfigDocument::from_text(toml, "a.toml");
    for (const auto& [key, value] : overrides) document.override_key(key, value);
    Outer outer;
    document.read(fields_of(outer));
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(Config, ReadsValuesSectionsTablesAndOverrides) {
  auto document = ConfigDocument::from_text(
      "rate = 1\nfiles = ['x']\n[inner]\nsize = 7\n[[item]]\nsize = 1\n[[item]]\n", "a.toml");
  document.override_key("inner.mode", "alpha");
  document.override_key("item.1.size", "9");
  document.override_key("on", "true");
  Outer outer;
  document.read(fields_of(outer));
  EXPECT_EQ(outer.rate, 1.0);
  EXPECT_TRUE(outer.on);
  EXPECT_EQ(outer.files, std::vector<std::string>{"x"});
  EXPECT_EQ(outer.inner.size, 7);
  EXPECT_EQ(outer.inner.mode, "alpha");
  ASSERT_EQ(outer.items.size(), 2u);
  EXPECT_EQ(outer.items[1].size, 9);
}

TEST(Config, PrintsWhatItReadsBack) {
  Outer outer;
  outer.rate = 0.1;
  outer.files = {"a\"b", "c\nd"};
  outer.items.resize(2);
  outer.items[1].size = 12;
  Outer again;
  ConfigDocument::from_text(to_toml(fields_of(outer), true), "printed").read(fields_of(again));
  EXPECT_EQ(again.rate, outer.rate);
  EXPECT_EQ(again.files, outer.files);
  EXPECT_EQ(again.items.at(1).size, 12);
}

TEST(Config, ErrorsNamePlaceKeyAndWhatIsAllowed) {
  EXPECT_EQ(error_of("rate = 2.0"), "a.toml:1: rate: expected a number in [0.0, 1.0], found 2");
  EXPECT_EQ(error_of("\non = 1"), "a.toml:2: on: expected true or false, found an integer");
  EXPECT_EQ(error_of("[inner]\nsiz = 1"),
            "a.toml:2: inner.siz: unknown key, did you mean `size`? (keys here: size, mode)");
  EXPECT_EQ(error_of("[inner]\nsize = 0"), "a.toml:2: inner.size: expected an integer >= 1, found 0");
  EXPECT_EQ(error_of("[inner]\nmode = 'alpa'"),
            "a.toml:2: inner.mode: expected one of alpha, a, found `alpa`, did you mean `alpha`?");
  EXPECT_EQ(error_of("inner = 3"), "a.toml:1: inner: expected a table, found an integer");
  EXPECT_EQ(error_of("", {{"inner.size", "x"}}), "--inner.size: expected an integer >= 1, found a string");
  EXPECT_EQ(error_of("", {{"inner.sise", "4"}}), "--inner.sise: unknown key, did you mean `inner.size`?");
  EXPECT_NE(error_of("rate = = 1").find("a.toml:1: not TOML"), std::string::npos);
}

TEST(Config, ErrorLinesAreShortAndPrintable) {
  const std::string error = error_of("\"" + std::string(5000, 'k') + "\\u0007\" = 1");
  EXPECT_LE(error.size(), 1000u);
  for (const char c : error) EXPECT_GE(static_cast<unsigned char>(c), 0x20);
}

TEST(Config, SaysHowTomlWantsWhatOtherFormatsWriteOtherwise) {
  const auto hint = [](const std::string& toml, const std::string& part) {
    const std::string error = error_of(toml);
    EXPECT_NE(error.find(part), std::string::npos) << toml << ": " << error;
  };
  hint("rate = 1\n[inner]\nmode = alpha\n", "a.toml:3: not TOML: ");
  hint("[inner]\nmode = alpha  # the first\n", "did you mean mode = \"alpha\"?");
  hint("[inner]\nmode = /data/alpha\n", "did you mean mode = \"/data/alpha\"?");
  hint("[inner]\nmode = ../alpha\n", "did you mean mode = \"../alpha\"?");
  hint("[inner]\nmode = 2b-alpha\n", "did you mean mode = \"2b-alpha\"?");
  hint("files = [a.txt, b.txt]\n", "texts in a list stand in quotes");
  hint("on = True\n", "did you mean on = true?");
  hint("on = None\n", "leave on out");
  hint("rate =\n", "rate has no value");
  hint("rate: 0.5\n", "key = value");
  hint("[item]\nsize = 1\n\n[item]\nsize = 2\n[item]\n",
       "[item] is in line 1 too: a list of tables is written [[item]]");
  hint("[item]\nsize = 1\n[[item]]\n", "[[item]]");
  hint("[[item]]\nsize = 1\n[ item ]\n", "[[item]]");
  hint("[item]\nsize = 1\n", "[[item]]");
  hint("[inner]\nmode = 1\n", "expected one of alpha, a, found an integer; texts stand in quotes");
  EXPECT_EQ(error_of("rate = 1 2\n").find("did you mean"), std::string::npos);
}

TEST(Config, FilesThatAreNoneAreCalledWhatTheyAre) {
  const TemporaryFolder folder;
  const auto error = [](const std::string& path) {
    try {
      ConfigDocument::from_file(path);
    } catch (const ConfigError& failure) {
      return std::string(failure.what());
    }
    return std::string();
  };
  EXPECT_EQ(error(folder.path("none.toml")),
            folder.path("none.toml") + ": no such file; expected a TOML config");
  EXPECT_EQ(error(folder.path()), folder.path() + ": is a folder; expected a TOML config");
  folder.write("config.toml", "");
  EXPECT_EQ(error(folder.path()),
            folder.path() + ": is a folder; expected a TOML config such as its config.toml");
  EXPECT_EQ(error(folder.path("config.toml")), "");
  EXPECT_NE(error(folder.path("config.toml/x")).find("no such file"), std::string::npos);
}

struct Unset {
  int64_t count = 0;
  std::string mode;
  void fields(FieldVisitor& visit) {
    visit.field("count", count, {.help = "a count", .allowed = at_least(1)});
    visit.field("mode", mode, {.help = "a mode", .allowed = one_of({"alpha", "beta"}), .required = true});
  }
};

TEST(Config, KeysWithoutAValueYetArePrintedAsRemarks) {
  Unset unset;
  unset.mode = "beta";
  EXPECT_EQ(to_toml(fields_of(unset)), "mode = \"beta\"\n");
  EXPECT_NE(to_toml(fields_of(unset), true).find("\n# count =\n"), std::string::npos);
  Unset again;
  ConfigDocument::from_text(to_toml(fields_of(unset), true), "a.toml").read(fields_of(again));
  EXPECT_EQ(again.count, 0);
}

TEST(Config, AMissingKeyIsNamedWithItsChoices) {
  Unset unset;
  try {
    ConfigDocument::from_text("count = 3\n", "a.toml").read(fields_of(unset));
    ADD_FAILURE();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("mode: is required: a mode; expected one of alpha, beta"),
              std::string::npos)
        << error.what();
  }
}

TEST(Config, RefusesWhatIsNoUtf8) {
  EXPECT_EQ(error_of("", {{"files", "['lat\xe9']"}, {"inner.mode", "a"}}).substr(0, 7), "--files");
  EXPECT_EQ(error_of("", {{"files", "lat\xe9"}}), "--files: expected UTF-8, found `lat?`");
  for (const char* good : {"", "a", "\u00e9", "\ud7ff\ue000", "\U0001F600", "\U0010FFFF"})
    EXPECT_TRUE(is_utf8(good));
  for (const char* bad : {"\xe9", "\x80", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
                          "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xe2\x82", "a\xff"})
    EXPECT_FALSE(is_utf8(bad)) << testing::PrintToString(bad);
}

}  // namespace
}  // namespace longreach
