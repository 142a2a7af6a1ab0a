// The chat template of a checkpoint: Jinja, as transformers sets it up for `apply_chat_template`
// (ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, loopcontrols, its own tojson, raise_exception,
// strftime_now and {% generation %}).
//
// What is written equals what Jinja writes, or the template is refused with the line and the name of what is
// not understood. Left out are tags and filters that chat templates do not use (include, call, with,
// recursive loops, macros in loops, markup), keys of mappings other than strings, `**`, methods that are not
// called at once, and characters whose other case is several. Time and memory are bounded, whatever a
// template does.
#pragma once
#include <ctime>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace longreach::data {

class ChatTemplate {
 public:
  // name: what errors call it ("chat_template, line 12: filter `x` is not known ..."). Throws DataError.
  explicit ChatTemplate(std::string_view source, std::string name = "chat_template");
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  struct Rendered {
    std::string text;
    // From byte to byte, what stands between {% generation %} and {% endgeneration %}.
    std::vector<std::pair<size_t, size_t>> generated;
  };
  // variables: an object (messages, add_generation_prompt, bos_token, ...). now: what strftime_now writes, in
  // local time. Throws DataError for texts that are not UTF-8, where the template refuses the conversation,
  // and where it goes wrong.
  Rendered render(const nlohmann::ordered_json& variables, std::time_t now = std::time(nullptr)) const;
  // Whether it has {% generation %}.
  bool marks_generation() const;

 private:
  struct Tree;
  std::string name_;
  std::unique_ptr<Tree> tree_;
};

}  // namespace longreach::data
