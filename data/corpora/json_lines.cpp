// Reading the forms of text and fine-tuning examples.
#include "data/corpora/json_lines.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/naming.h"
#include "data/common/json_file.h"

namespace longreach::data {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

enum class Form { none, text, messages, conversations, completion, instruction };

json parse(const std::string& line, const std::string& where) {
  try {
    json value = json::parse(line);
    check<DataError>(value.is_object(), where, ": is not a JSON object: ", one_line(line, 60));
    return value;
  } catch (const json::exception& error) {
    std::string fault = json_fault(line, error);
    constexpr std::string_view kFirst = "parse error at line 1, ";  // `where` names the line
    if (const size_t at = fault.find(kFirst); at != std::string::npos) fault.erase(at, kFirst.size());
    throw DataError(text(where, ": is not valid JSON: ", one_line(fault, 300)));
  }
}

const std::string& text_at(const json& object, const std::string& key, const std::string& where) {
  const auto found = object.find(key);
  check<DataError>(found != object.end() && found->is_string(), where, ": `", one_line(key, 60), "` is ",
                   found == object.end() ? "missing" : found->type_name(), ", expected a string");
  return found->get_ref<const std::string&>();
}

// The form of an object; more than one is ambiguous.
Form form_of(const json& object, const std::string& text_key, const std::string& where) {
  const auto has = [&](const char* key) { return object.contains(key); };
  std::vector<std::pair<Form, const char*>> forms;
  if (has("messages")) forms.emplace_back(Form::messages, "`messages`");
  if (has("conversations")) forms.emplace_back(Form::conversations, "`conversations`");
  if (has("prompt") && has("completion")) forms.emplace_back(Form::completion, "`prompt` and `completion`");
  if (has("instruction") && has("output"))
    forms.emplace_back(Form::instruction, "`instruction` and `output`");
  check<DataError>(forms.size() < 2, where, ": holds ", forms.empty() ? "" : forms[0].second, " and also ",
                   forms.size() < 2 ? "" : forms[1].second, ", expected one of them");
  if (!forms.empty()) return forms[0].first;
  return object.contains(text_key) ? Form::text : Form::none;
}

Form known_form_of(const json& object, const std::string& text_key, const std::string& where) {
  const Form form = form_of(object, text_key, where);
  std::vector<std::string> keys;
  for (const auto& item : object.items()) keys.push_back("`" + item.key() + "`");
  check<DataError>(form != Form::none, where, ": has neither `", one_line(text_key, 60),
                   "` (data.text_key) nor `messages`, `conversations`, `prompt` and `completion`, or "
                   "`instruction` and `output`; its keys are ",
                   keys.empty() ? "none" : one_line(join(keys), 200));
  return form;
}

// Roles as data sets name them, and the template's name for them.
constexpr std::array<std::pair<std::string_view, std::string_view>, 18> kRoles{{
    {"system", "system"},
    {"user", "user"},
    {"human", "user"},
    {"prompter", "user"},
    {"assistant", "assistant"},
    {"gpt", "assistant"},
    {"model", "assistant"},
    {"bot", "assistant"},
    {"chatbot", "assistant"},
    {"chatgpt", "assistant"},
    {"ai", "assistant"},
    {"bard", "assistant"},
    {"bing", "assistant"},
    {"tool", "tool"},
    {"function", "function"},
    {"ipython", "ipython"},
    {"observation", "observation"},
    {"developer", "developer"},
}};

std::string known_role(const std::string& found, const std::string& where, ExampleNotes& notes) {
  notes.role(found);
  std::string small = found;
  std::transform(small.begin(), small.end(), small.begin(), [](unsigned char c) { return std::tolower(c); });
  std::vector<std::string> known;
  for (const auto& [name, role] : kRoles) {
    if (small == name) {
      if (found != role) notes.say(where, text("the role `", found, "` is read as `", role, "`"));
      return std::string(role);
    }
    known.emplace_back(name);
  }
  throw DataError(
      text(where, ": the role `", one_line(found, 60), "` is not known, expected one of ", join(known)));
}

std::vector<ChatMessage> messages_of(const json& object, Form form, const std::string& where,
                                     ExampleNotes& notes) {
  const std::string key = form == Form::messages ? "messages" : "conversations";
  const json& list = object[key];
  bool share_gpt = form == Form::conversations;
  if (share_gpt && list.is_array() && !list.empty() && list[0].is_object())
    share_gpt = !list[0].contains("role");
  const std::string role = share_gpt ? "from" : "role", content = share_gpt ? "value" : "content";
  const auto expected = text(": `", key, "` must be a list of {", role, ", ", content, "}");
  check<DataError>(list.is_array() && !list.empty(), where, expected);
  if (form == Form::conversations)
    notes.say(where, text("`conversations` is read as messages of `", role, "` and `", content, "`"));
  std::vector<ChatMessage> messages;
  for (const json& message : list) {
    check<DataError>(message.is_object(), where, expected);
    messages.push_back(
        {known_role(text_at(message, role, where), where, notes), text_at(message, content, where)});
  }
  return messages;
}

// Alpaca's fields as a conversation.
std::vector<ChatMessage> instruction_of(const json& object, const std::string& where, ExampleNotes& notes) {
  notes.say(
      where,
      "`instruction`, a blank line and `input` are read as the user's turn, `output` as the assistant's, "
      "`system` as the system's");
  std::vector<ChatMessage> messages;
  const auto optional = [&](const char* key) {
    const auto found = object.find(key);
    return found == object.end() || found->is_null() ? std::string() : text_at(object, key, where);
  };
  if (const auto system = optional("system"); !system.empty()) messages.push_back({"system", system});
  const std::string input = optional("input");
  messages.push_back({"user", text_at(object, "instruction", where) + (input.empty() ? "" : "\n\n" + input)});
  messages.push_back({"assistant", text_at(object, "output", where)});
  for (const ChatMessage& message : messages) notes.role(message.role);
  return messages;
}

// What a template is given: every key of `messages` in its order, and `tools`; other forms as messages.
ordered_json conversation_of(const std::string& line, const json& object, Form form, const std::string& where,
                             ExampleNotes& notes) {
  ordered_json messages = ordered_json::array(), conversation;
  if (form == Form::messages) {
    const ordered_json whole = ordered_json::parse(line);
    const auto expected = text(": `messages` must be a list of {role, content}");
    check<DataError>(whole["messages"].is_array() && !whole["messages"].empty(), where, expected);
    for (ordered_json message : whole["messages"]) {
      check<DataError>(message.is_object(), where, expected);
      message["role"] = known_role(text_at(json(message), "role", where), where, notes);
      messages.push_back(std::move(message));
    }
    if (whole.contains("tools")) conversation["tools"] = whole["tools"];
  } else {
    for (const auto& [role, content] : form == Form::instruction ? instruction_of(object, where, notes)
                                                                 : messages_of(object, form, where, notes))
      messages.push_back({{"role", role}, {"content", content}});
  }
  conversation["messages"] = std::move(messages);
  return conversation;
}

// Read without being learnt, where there is a mask.
LabelledTokens begun_with(const std::optional<Token>& bos, LabelledTokens example) {
  if (!bos || example.tokens.empty() || example.tokens[0] == *bos) return example;
  example.tokens.insert(example.tokens.begin(), *bos);
  if (!example.mask.empty()) example.mask.insert(example.mask.begin(), 0);
  return example;
}

LabelledTokens by_own_template(const Tokenizer& tokenizer, const ChatFormat& format,
                               const ordered_json& conversation, const std::string& where,
                               ExampleNotes& notes) {
  auto example = naming<DataError>(where, [&] { return format.example(tokenizer, conversation); });
  if (example.turns_not_learnt > 0)
    notes.say(
        where,
        "the chat template writes a turn of the assistant otherwise once more messages follow (thinking that "
        "it drops); such a turn is read without being learnt");
  return std::move(example.tokens);
}

// A name without an ending, or .json, tells its kind by what is in it.
RecordForm sniffed_form(const std::string& path, const std::string& text_key, RecordForm form) {
  RecordReader reader(path, form);
  std::string record, more;
  try {
    if (!reader.next(record)) return RecordForm::none;
    const json object = json::parse(record, nullptr, false);
    if (!object.is_object()) return RecordForm::none;
    if (form_of(object, text_key, path) != Form::none) return form;
    return form == RecordForm::values && reader.next(more) ? form : RecordForm::none;
  } catch (const DataError&) {
    return RecordForm::none;  // a text that begins like an object
  }
}

}  // namespace

void ExampleNotes::say(const std::string& where, const std::string& rule) {
  if (said_.insert(rule).second)
    std::cerr << one_line(text("warning: ", where, ": ", rule, ", here and wherever it is met")) << std::endl;
}

void ExampleNotes::count(const LabelledTokens& example) {
  labels_ += std::count(example.mask.begin(), example.mask.end(), 1);
}

std::string ExampleNotes::roles() const {
  std::vector<std::string> list;
  for (const auto& [role, count] : roles_) list.push_back(text("`", role, "` (", count, ")"));
  return list.empty() ? "none" : one_line(join(list), 300);
}

RecordForm record_form(const std::string& path, const std::string& text_key) {
  const std::string name = plain_name(path);
  if (name.ends_with(".jsonl") || name.ends_with(".ndjson")) return RecordForm::lines;
  const bool ending = std::filesystem::path(name).has_extension();
  if (ending && !name.ends_with(".json")) return RecordForm::none;
  const auto stream = open_stream(path);
  std::string head(4096, '\0');
  head.resize(static_cast<size_t>(stream->read(head.data(), 4096)));
  check<DataError>(!ending || (!head.starts_with("\xFF\xFE") && !head.starts_with("\xFE\xFF")), path,
                   ": is UTF-16 text, expected UTF-8 (`iconv -f UTF-16 -t UTF-8` writes it)");
  const size_t first = head.find_first_not_of("\xEF\xBB\xBF \t\r\n");
  if (first == std::string::npos) return RecordForm::none;
  if (head[first] == '[' && ending) return RecordForm::values;
  if (head[first] != '{') return RecordForm::none;
  return sniffed_form(path, text_key, ending ? RecordForm::values : RecordForm::lines);
}

bool is_example(const std::string& line, const std::string& text_key, const std::string& where) {
  return known_form_of(parse(line, where), text_key, where) != Form::text;
}

LabelledTokens encode_json_line(const std::string& line, const Tokenizer& tokenizer,
                                const std::string& text_key, const ChatChoice& chat, const std::string& where,
                                ExampleNotes& notes) {
  const json object = parse(line, where);
  const Form form = known_form_of(object, text_key, where);
  LabelledTokens result;
  if (form == Form::text) {
    result.tokens = tokenizer.encode(text_at(object, text_key, where));
    if (const auto eos = tokenizer.eos(); eos && !result.tokens.empty()) result.tokens.push_back(*eos);
    return begun_with(chat.bos, std::move(result));
  }
  if (form == Form::completion)
    result = begun_with(chat.bos, render_completion(tokenizer, text_at(object, "prompt", where),
                                                    text_at(object, "completion", where)));
  else if (chat.own)
    result = by_own_template(tokenizer, *chat.own, conversation_of(line, object, form, where, notes), where,
                             notes);
  else if (form == Form::instruction)
    result = render_chat(tokenizer, instruction_of(object, where, notes), chat.name);
  else
    result = render_chat(tokenizer, messages_of(object, form, where, notes), chat.name);
  notes.count(result);
  return result;
}

}  // namespace longreach::data
