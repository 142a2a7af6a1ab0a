// Chat templates, rendered for conversations with and without tools.
#include <nlohmann/json.hpp>

#include "data/chat_template/chat_template.h"
#include "tests/fuzz/fuzz_input.h"

namespace {

using nlohmann::ordered_json;

const std::vector<ordered_json>& conversations() {
  static const std::vector<ordered_json> all = [] {
    ordered_json turns = ordered_json::array();
    for (const auto& [role, content] :
         {std::pair{"system", "Be brief."}, {"user", "Hi, \"you\"\n"}, {"assistant", "<a>"}})
      turns.push_back({{"role", role}, {"content", content}});
    ordered_json plain{
        {"messages", turns}, {"bos_token", "<s>"}, {"eos_token", "</s>"}, {"add_generation_prompt", true}};
    ordered_json tools = plain;
    tools["add_generation_prompt"] = false;
    tools["tools"] = {{{"type", "function"}, {"function", {{"name", "f"}, {"parameters", {{"x", 1.5}}}}}}};
    tools["messages"].push_back(
        {{"role", "assistant"},
         {"content", nullptr},
         {"tool_calls", {{{"function", {{"name", "f"}, {"arguments", {{"x", -3}}}}}}}}});
    return std::vector{plain, tools};
  }();
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* input, size_t size) {
  using namespace longreach;
  fuzz::expect_user_error([&] {
    const data::ChatTemplate chat(fuzz::view(input, size));
    for (const ordered_json& conversation : conversations())
      fuzz::expect_user_error([&] {
        for (const auto& [begin, end] : chat.render(conversation, 0).generated)
          if (begin > end) __builtin_trap();
      });
  });
  return 0;
}
