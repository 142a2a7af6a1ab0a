// A conversation is rendered as text, and encoded part by part: borders stand where labels begin and end, and
// inside of special tokens that a message spells.
#include "data/corpora/chat_format.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "core/error.h"
#include "core/naming.h"
#include "data/common/fingerprint.h"
#include "data/common/json_file.h"
#include "data/tokenizers/unicode_classes.h"

namespace longreach::data {
namespace {

using nlohmann::ordered_json;

constexpr const char *kConfig = "tokenizer_config.json", *kMap = "special_tokens_map.json",
                     *kJinja = "chat_template.jinja";
// A character that no text holds, put into what a message spells so that it is no special token.
constexpr std::string_view kBreak = "\xEF\xB7\x90";

ordered_json object_of(const std::map<std::string, std::string>& files, const char* name) {
  const auto found = files.find(name);
  if (found == files.end()) return ordered_json::object();
  ordered_json json = ordered_json::parse(found->second, nullptr, false);
  check<DataError>(json.is_object(), name, ": expected a JSON object");
  return json;
}

std::string text_of(const ordered_json& token) {
  if (token.is_string()) return token.get<std::string>();
  const bool object = token.is_object() && token.contains("content") && token["content"].is_string();
  return object ? token["content"].get<std::string>() : "";
}

// The template called `default`, of one or several.
std::string template_of(const std::map<std::string, std::string>& files, const ordered_json& config) {
  if (const auto file = files.find(kJinja); file != files.end()) return file->second;
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return "";
  if (found->is_string()) return found->get<std::string>();
  std::vector<std::string> names;
  for (const ordered_json& one : found->is_array() ? *found : ordered_json::array()) {
    const bool whole = one.is_object() && one.contains("name") && one.contains("template") &&
                       one["name"].is_string() && one["template"].is_string();
    check<DataError>(whole, kConfig, ": chat_template: expected a string, or a list of {name, template}");
    if (one["name"] == "default") return one["template"].get<std::string>();
    names.push_back(one["name"].get<std::string>());
  }
  throw DataError(text(kConfig, ": chat_template: none is called `default`, found ",
                       names.empty() ? "no list of {name, template}" : one_line(join(names), 200)));
}

// bos_token and the like, as transformers gives them to a template; and everything that is special.
void read_tokens(const ordered_json& given, ordered_json& tokens, std::vector<std::string>& markers) {
  for (const auto& [key, value] : given.items()) {
    if (key.ends_with("_token") && !text_of(value).empty()) {
      tokens[key] = text_of(value);
      markers.push_back(text_of(value));
    }
    if (key == "additional_special_tokens" && value.is_array())
      for (const ordered_json& one : value) markers.push_back(text_of(one));
    if (key == "added_tokens_decoder" && value.is_object())
      for (const auto& [id, one] : value.items())
        if (one.is_object() && one.value("special", false)) markers.push_back(text_of(one));
  }
}

// Whether a token is one that plain text never becomes.
bool is_special(const Tokenizer& tokenizer, Token id) {
  const std::string written = tokenizer.decode(std::array{id});
  return tokenizer.id_of(written) == id && tokenizer.encode(written, false) != std::vector<Token>{id};
}

// The parts of a text one behind the other.
class Encoder {
 public:
  Encoder(const Tokenizer& tokenizer, const std::vector<std::string>& markers) : tokenizer_(tokenizer) {
    for (const std::string& marker : markers)  // those that the tokenizer does not find by itself
      if (const auto id = tokenizer.id_of(marker); id && tokenizer.encode(marker) != std::vector<Token>{*id})
        markers_.emplace_back(marker, *id);
  }

  void add(std::string_view text, bool wanted) {
    for (;;) {
      const size_t end = text.find(kBreak);
      add_unbroken(text.substr(0, end), wanted);
      if (end == std::string_view::npos) return;
      text.remove_prefix(end + kBreak.size());
    }
  }
  void add(Token id, bool wanted) {
    result_.tokens.push_back(id);
    result_.mask.push_back(wanted ? 1 : 0);
    state_ = {.place = TextState::Place::apart};
  }
  size_t size() const { return result_.tokens.size(); }
  LabelledTokens& result() { return result_; }

 private:
  void add_unbroken(std::string_view text, bool wanted) {
    while (!text.empty()) {
      size_t at = std::string_view::npos, length = 0;
      Token id = 0;
      for (const auto& [marker, marker_id] : markers_)
        if (const size_t found = text.find(marker); found < at) {
          at = found;
          length = marker.size();
          id = marker_id;
        }
      if (at != 0)
        for (const Token token : tokenizer_.encode_part(text.substr(0, at), true, state_)) {
          result_.tokens.push_back(token);
          result_.mask.push_back(wanted ? 1 : 0);
        }
      if (at == std::string_view::npos) return;
      add(id, wanted);
      text.remove_prefix(at + length);
    }
  }

  const Tokenizer& tokenizer_;
  std::vector<std::pair<std::string, Token>> markers_;
  LabelledTokens result_;
  TextState state_;
};

struct Span {
  size_t begin = 0, end = 0;
};

}  // namespace

std::shared_ptr<const ChatFormat> ChatFormat::from_files(const std::map<std::string, std::string>& files,
                                                         const std::string& where) {
  return naming<DataError>(one_line(where), [&]() -> std::shared_ptr<const ChatFormat> {
    const ordered_json config = object_of(files, kConfig);
    std::string source = template_of(files, config);
    if (source.empty()) return nullptr;
    ordered_json tokens = ordered_json::object();
    std::vector<std::string> markers;
    read_tokens(object_of(files, kMap), tokens, markers);
    read_tokens(config, tokens, markers);
    std::erase(markers, "");
    std::stable_sort(markers.begin(), markers.end(),
                     [](const auto& a, const auto& b) { return a.size() > b.size(); });
    return std::shared_ptr<const ChatFormat>(
        new ChatFormat(std::move(source), where, std::move(tokens), std::move(markers)));
  });
}

std::shared_ptr<const ChatFormat> ChatFormat::of_tokenizer(const std::string& spec) {
  namespace fs = std::filesystem;
  const fs::path path(spec), folder = fs::is_directory(path) ? path : path.parent_path();
  if (spec == "bytes") return nullptr;
  std::map<std::string, std::string> files;
  for (const char* name : {kConfig, kMap, kJinja})
    if (fs::exists(folder / name)) files[name] = read_whole_file((folder / name).string());
  return from_files(files, folder.string());
}

std::string ChatFormat::fingerprint() const { return hash_hex(source_ + "\n" + tokens_.dump()); }

const ChatTemplate& ChatFormat::parsed() const {
  // No call_once: a template that is not understood leaves by an exception, which thread sanitizers do not
  // follow through it.
  const std::lock_guard lock(parsing_);
  if (!parsed_) parsed_.emplace(source_, one_line(where_) + ": chat_template");
  return *parsed_;
}

ChatTemplate::Rendered ChatFormat::render(const ordered_json& conversation, bool add_generation_prompt,
                                          std::time_t now) const {
  ordered_json variables{{"tools", nullptr}, {"documents", nullptr}};
  variables.update(tokens_);
  variables.update(conversation);
  variables["add_generation_prompt"] = add_generation_prompt;
  return parsed().render(variables, now);
}

std::string ChatFormat::prompt_text(const ordered_json& conversation, std::time_t now) const {
  return render(conversation, true, now).text;
}

ordered_json ChatFormat::protect(const Tokenizer& tokenizer, const ordered_json& value) const {
  ordered_json safe = value;
  if (value.is_structured()) {
    for (auto& part : safe) part = protect(tokenizer, part);
    return safe;
  }
  if (!value.is_string()) return safe;
  auto written = value.get<std::string>();
  check<DataError>(written.find(kBreak) == std::string::npos,
                   "a message holds U+FDD0, which is no character");
  std::vector<std::string> found;
  for (const std::string& marker : markers_)
    if (written.find(marker) != std::string::npos && tokenizer.id_of(marker)) found.push_back(marker);
  const auto plain = tokenizer.encode(written, false), special = tokenizer.encode(written, true);
  if (plain != special)
    for (const Token id : special)
      if (is_special(tokenizer, id)) found.push_back(tokenizer.decode(std::array{id}));
  for (const std::string& marker : found) {
    std::string broken = marker;
    broken.insert(decode_char(marker, 0).length, kBreak);
    for (size_t at = 0; (at = written.find(marker, at)) != std::string::npos; at += broken.size())
      written.replace(at, marker.size(), broken);
  }
  return written;
}

std::vector<Token> ChatFormat::prompt(const Tokenizer& tokenizer, const ordered_json& conversation) const {
  ordered_json safe = conversation;
  safe["messages"] = protect(tokenizer, conversation.at("messages"));
  Encoder out(tokenizer, markers_);
  out.add(render(safe, true).text, false);
  return std::move(out.result().tokens);
}

ChatFormat::Example ChatFormat::example(const Tokenizer& tokenizer, const ordered_json& conversation) const {
  ordered_json safe = conversation;
  const ordered_json messages = safe["messages"] = protect(tokenizer, conversation.at("messages"));
  const ChatTemplate::Rendered whole = render(safe, false);
  Example example;
  std::vector<Span> spans;
  const bool marked = parsed().marks_generation();
  for (const auto& [begin, end] : whole.generated) spans.push_back({begin, end});
  for (size_t i = 0; !marked && i < messages.size(); ++i) {
    if (messages[i].value("role", "") != "assistant") continue;
    const auto up_to = [&](size_t count, bool prompt) {
      safe["messages"] = ordered_json(messages.begin(), messages.begin() + static_cast<ptrdiff_t>(count));
      return render(safe, prompt).text;
    };
    const std::string before = up_to(i, true), behind = up_to(i + 1, false);
    const bool in_line = whole.text.starts_with(behind) && behind.starts_with(before) &&
                         (spans.empty() || spans.back().end <= before.size());
    if (in_line)
      spans.push_back({before.size(), behind.size()});
    else
      ++example.turns_not_learnt;
  }
  Encoder out(tokenizer, markers_);
  const std::string_view text = whole.text;
  size_t at = 0;
  bool ended = true;  // by a special token
  for (const Span& span : spans) {
    out.add(text.substr(at, span.begin - at), false);
    const size_t first = out.size();
    out.add(text.substr(span.begin, span.end - span.begin), true);
    auto& [tokens, mask] = out.result();
    size_t last = out.size();
    while (last > first && !is_special(tokenizer, tokens[last - 1])) --last;
    ended = last > first;
    if (ended && !marked) std::fill(mask.begin() + static_cast<ptrdiff_t>(last), mask.end(), uint8_t{0});
    at = span.end;
  }
  out.add(text.substr(at), false);
  if (!ended && at == text.size() && tokenizer.eos()) out.add(*tokenizer.eos(), true);
  example.tokens = std::move(out.result());
  return example;
}

std::optional<Token> ChatFormat::end_of_turn(const Tokenizer& tokenizer) const {
  const ordered_json turns{{{"role", "user"}, {"content", "a"}}, {{"role", "assistant"}, {"content", "b"}}};
  const LabelledTokens said = example(tokenizer, {{"messages", turns}}).tokens;
  for (size_t i = said.tokens.size(); i-- > 0;)
    if (said.mask[i] != 0)
      return is_special(tokenizer, said.tokens[i]) ? std::optional(said.tokens[i]) : std::nullopt;
  return std::nullopt;
}

std::shared_ptr<const ChatFormat> chat_format_of(const std::string& chat_template,
                                                 const std::string& tokenizer) {
  if (chat_template != "auto" && chat_template != "checkpoint") return nullptr;
  auto found = ChatFormat::of_tokenizer(tokenizer);
  check<DataError>(found || chat_template == "auto",
                   "data.chat_template = \"checkpoint\": ", one_line(tokenizer, 200),
                   ": the tokenizer came without a chat template (chat_template.jinja, or `chat_template` in "
                   "tokenizer_config.json)");
  return found;
}

}  // namespace longreach::data
