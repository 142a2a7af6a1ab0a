// Templates beside Jinja's own renderings, and what is refused.
#include "data/chat_template/chat_template.h"

#include <gmock/gmock.h>

#include "tests/data/chat_template/chat_template_cases.h"

namespace longreach::data {
namespace {

using namespace testing;
using nlohmann::ordered_json;

std::string render(const std::string& source, const ordered_json& variables = ordered_json::object()) {
  return ChatTemplate(source).render(variables).text;
}

std::string refusal(const std::string& source, const ordered_json& variables = ordered_json::object()) {
  try {
    render(source, variables);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

TEST(ChatTemplate, WritesWhatJinjaWrites) {
  EXPECT_GE(test::expect_renderings(LONGREACH_SOURCE_DIR "/tests/data/chat_template/vectors/rendered.json"),
            500);
}

TEST(ChatTemplate, RefusesByNameAndLineWhatItDoesNotKnow) {
  const std::pair<const char*, const char*> cases[] = {
      {"a\n\n{{ 1 | shuffle }}", "chat_template, line 3: filter `shuffle` is not known"},
      {"{{ 1 is prime }}", "line 1: test `prime` is not known"},
      {"{% if true %}\n{% include 'x' %}{% endif %}", "line 2: tag `include` is not known"},
      {"{% raw %}{% endraw %}", "tag `raw` is not known"},
      {"{% macro f() %}{% endmacro %}{% call f() %}{% endcall %}", "tag `call` is not known"},
      {"\n{{ 'x'.center(3) }}", "line 2: the method `center` of a string is not known"},
      {"{{ 'x'.upper }}", "`upper` of a string is not called"},
      {"{{ [].append(1) }}", "the method `append` of a list is not known"},
      {"{{ {}.update() }}", "the method `update` of a mapping is not known"},
      {"{{ ''.__class__ }}", "`__class__` of a string"},
      {"{{ cycler(1) }}", "Jinja's `cycler` is not supported"},
      {"{% for x in [1] %}{{ loop.changed(x) }}{% endfor %}", "`loop.changed` is not supported"},
      {"{% for x in [1] recursive %}{% endfor %}", "a recursive loop is not supported"},
      {"{% for x in [1] %}{% macro f() %}{% endmacro %}{% endfor %}", "the macro `f` inside of a loop"},
      {"{{ 2 ** 3 }}", "`**` is not supported"},
      {"{{ f(*[1]) }}", "arguments with `*` are not supported"},
      {"{{ {1: 2} }}", "a key of a mapping is an integer"},
      {"{{ range(3) }}", "printing a range is not supported"},
      {"{{ [namespace()] }}", "a namespace inside of another value"},
      {"{% set g = [1] | map('string') %}{{ g | list }}{{ g | list }}", "is gone through twice"},
      {"{{ '\xC3\x9F' | upper }}", "the upper case of U+DF is not known"},
      {"{% set x %}{% generation %}{% endgeneration %}{% endset %}", "`generation` inside of a macro"},
      {"{{ nothing.more }}", "line 1: `nothing` is not defined, and has no `more`"},
      {"{{ 99999999999999999999 }}", "is too large"},
      {"{{ 9223372036854775807 + 1 }}", "a number is too large"},
      {"\n\n{{ raise_exception('roles must alternate') }}",
       "chat_template, line 3: the template refuses the conversation: roles must alternate"},
      {"{{ 'x }}", "does not end"},
      {"\xFF", "is not UTF-8"},
  };
  for (const auto& [source, expected] : cases) {
    EXPECT_THAT(refusal(source), HasSubstr(expected)) << source;
    EXPECT_THAT(refusal(source), StartsWith("chat_template, line ")) << source;
  }
  EXPECT_THAT(refusal("{{ messages[0] }}", {{"messages", {"\xFF"}}}), HasSubstr("the conversation"));
}

TEST(ChatTemplate, BoundsWhatATemplateMayDo) {
  const std::string loops =
      "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = a * b %}{% endfor %}{% endfor %}";
  const std::string grows =
      "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x "
      "%}{% endfor %}";
  const std::string shares =
      "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
      "{% endfor %}";
  for (const std::string& source :
       {loops, grows, shares + "{{ ns.x }}", shares + "{{ ns.x | tojson }}",
        shares + "{{ ns.x == [ns.x, 1] }}" + shares + "{{ ns.x == [ns.x[0], ns.x[1]] }}",
        std::string("{{ 'a' * 9223372036854775807 }}")})
    EXPECT_THAT(refusal(source), HasSubstr("it works without end, or writes more")) << source;
  EXPECT_THAT(refusal("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), HasSubstr("nested deeper"));
  EXPECT_THAT(
      refusal("{% set ns = namespace(x=[]) %}{% for i in range(999) %}{% set ns.x = [ns.x] %}{% endfor %}"),
      HasSubstr("nested deeper"));
  EXPECT_THAT(refusal("{{ range(100001) }}"), HasSubstr("range is longer"));
  for (const std::string open : {"(", "[", "{'a':", "not ", "-", "x[", "f(", "x|f("}) {
    std::string deep = "{{ ";
    for (int i = 0; i < 100000; ++i) deep += open;
    EXPECT_THAT(refusal(deep), StartsWith("chat_template, line 1: ")) << open;
  }
  std::string nested;
  for (int i = 0; i < 10000; ++i) nested += "{% if true %}";
  EXPECT_THAT(refusal(nested), HasSubstr("nested deeper"));
  EXPECT_THAT(refusal(std::string(2 << 20, 'x')), HasSubstr("allowed are"));
}

TEST(ChatTemplate, SaysTheTimeItIsGiven) {
  std::tm noon{};
  noon.tm_year = 126;
  noon.tm_mon = 1;
  noon.tm_mday = 3;
  noon.tm_hour = 12;
  const ChatTemplate chat("{{ strftime_now('%d %b %Y') }}|{{ strftime_now('') }}");
  EXPECT_EQ(chat.render(ordered_json::object(), std::mktime(&noon)).text, "03 Feb 2026|");
}

TEST(ChatTemplate, MarksWhatTheAssistantSays) {
  const ChatTemplate chat("a{% generation %}bc{% endgeneration %}d{% generation %}{% endgeneration %}");
  EXPECT_TRUE(chat.marks_generation());
  EXPECT_FALSE(ChatTemplate("a").marks_generation());
  EXPECT_TRUE(
      ChatTemplate("{% for x in [] %}{% generation %}{% endgeneration %}{% endfor %}").marks_generation());
  EXPECT_THAT(chat.render(ordered_json::object()).generated, ElementsAre(Pair(1, 3), Pair(4, 4)));
}

}  // namespace
}  // namespace longreach::data
