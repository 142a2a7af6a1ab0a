// Reading JSONL lines of the three known forms.
#include "data/json_lines.h"

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace longreach::data {
namespace {

using nlohmann::json;

json parse(const std::string& line, const std::string& where) {
  json value = json::parse(line, nullptr, false);
  check<DataError>(value.is_object(), where, ": is not a JSON object: ", one_line(line, 60));
  return value;
}

const std::string& text_at(const json& object, const std::string& key, const std::string& where) {
  const auto found = object.find(key);
  check<DataError>(found != object.end() && found->is_string(), where, ": `", one_line(key, 60), "` is ",
                   found == object.end() ? "missing" : found->type_name(), ", expected a string");
  return found->get_ref<const std::string&>();
}

std::vector<ChatMessage> messages_of(const json& object, const std::string& where) {
  const json& list = object["messages"];
  check<DataError>(list.is_array() && !list.empty(), where, ": `messages` must be a list of {role, content}");
  std::vector<ChatMessage> messages;
  for (const json& message : list) {
    check<DataError>(message.is_object(), where, ": `messages` must be a list of {role, content}");
    messages.push_back({text_at(message, "role", where), text_at(message, "content", where)});
  }
  return messages;
}

bool is_example(const json& object, const std::string& text_key, const std::string& where) {
  if (object.contains("messages") || (object.contains("prompt") && object.contains("completion")))
    return true;
  check<DataError>(object.contains(text_key), where, ": has neither `", one_line(text_key, 60),
                   "` (data.text_key) nor `prompt` and `completion` nor `messages`");
  return false;
}

}  // namespace

bool is_example(const std::string& line, const std::string& text_key, const std::string& where) {
  return is_example(parse(line, where), text_key, where);
}

LabelledTokens encode_json_line(const std::string& line, const Tokenizer& tokenizer,
                                const std::string& text_key, const std::string& chat_template,
                                const std::string& where) {
  json object = parse(line, where);
  if (!is_example(object, text_key, where)) {
    LabelledTokens result{tokenizer.encode(text_at(object, text_key, where)), {}};
    if (const auto eos = tokenizer.eos(); eos && !result.tokens.empty()) result.tokens.push_back(*eos);
    return result;
  }
  if (object.contains("messages")) return render_chat(tokenizer, messages_of(object, where), chat_template);
  return render_completion(tokenizer, text_at(object, "prompt", where), text_at(object, "completion", where));
}

}  // namespace longreach::data
