#include "train/chat_form.h"

#include <nlohmann/json.hpp>

#include "data/chat_template/chat_template.h"

namespace longreach {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kConfig = "tokenizer/tokenizer_config.json";
constexpr const char* kTemplate = "tokenizer/chat_template.jinja";

// Some templates write the date. The same sample has the same prompt on every day: 26 July 2024, which those
// of Llama 3 take where they are told none.
constexpr std::time_t kNoon = 1721995200;

std::string text_of(const SavedModel& saved, const char* name) {
  const auto found = saved.texts.find(name);
  return found == saved.texts.end() ? std::string() : found->second;
}

// A text, or a list of named ones, of which `default` counts.
std::string template_in(const Json& config) {
  const auto found = config.find("chat_template");
  if (found == config.end()) return {};
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array())
    for (const Json& entry : *found)
      if (entry.is_object() && entry.value("name", Json()) == "default" &&
          entry.value("template", Json()).is_string())
        return entry["template"].get<std::string>();
  return {};
}

// bos_token and its like, each a text or an object that holds it.
void add_tokens(const Json& config, Json& variables) {
  for (const char* name : {"bos_token", "eos_token", "unk_token", "pad_token"}) {
    const Json value = config.value(name, Json());
    const Json content = value.is_object() ? value.value("content", Json()) : value;
    if (content.is_string()) variables[name] = content;
  }
}

}  // namespace

std::optional<data::PromptForm> chat_form(const SavedModel& saved) {
  const Json parsed = Json::parse(text_of(saved, kConfig), nullptr, false);
  const Json config = parsed.is_object() ? parsed : Json::object();
  std::string source = text_of(saved, kTemplate);
  const bool own_file = !source.empty();
  if (!own_file) source = template_in(config);
  if (source.empty()) return std::nullopt;
  const std::string name = text(saved.path, "/", own_file ? kTemplate : kConfig, ": chat_template");
  const auto written = std::make_shared<const data::ChatTemplate>(source, one_line(name));
  Json variables{{"add_generation_prompt", true}};
  add_tokens(config, variables);
  return [written, variables](const std::string& request, const std::string& beginning) {
    Json all = variables;
    all["messages"] = Json::array({{{"role", "user"}, {"content", request}}});
    return written->render(all, kNoon).text + beginning;
  };
}

}  // namespace longreach
