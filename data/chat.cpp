// Chat templates. Each piece is encoded by itself, as it is when a conversation is continued at generation
// time.
#include "data/chat.h"

#include "core/error.h"

namespace longreach::data {
namespace {

class Rendering {
 public:
  explicit Rendering(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void plain(std::string_view text, bool wanted) { add(tokenizer_.encode(text, false), wanted); }
  // A special token, or its text when the tokenizer has no such token.
  void marker(std::string_view text, bool wanted) {
    const auto id = tokenizer_.id_of(text);
    if (id)
      add({*id}, wanted);
    else
      plain(text, wanted);
  }
  void eos(bool wanted) {
    if (const auto id = tokenizer_.eos()) add({*id}, wanted);
  }
  LabelledTokens take() { return std::move(result_); }

 private:
  void add(const std::vector<Token>& tokens, bool wanted) {
    result_.tokens.insert(result_.tokens.end(), tokens.begin(), tokens.end());
    result_.mask.insert(result_.mask.end(), tokens.size(), wanted ? 1 : 0);
  }

  const Tokenizer& tokenizer_;
  LabelledTokens result_;
};

std::string_view trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

}  // namespace

std::string_view end_of_turn(std::string_view chat_template) {
  if (chat_template == "chatml") return "<|im_end|>";
  check<DataError>(chat_template == "llama3", "chat_template `", one_line(chat_template, 60),
                   "`, allowed: chatml, llama3");
  return "<|eot_id|>";
}

LabelledTokens render_chat(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages,
                           std::string_view chat_template) {
  const std::string_view end = end_of_turn(chat_template);
  const bool llama3 = chat_template == "llama3", end_is_text = !tokenizer.id_of(end);
  Rendering out(tokenizer);
  if (llama3) out.marker("<|begin_of_text|>", false);
  bool wanted = false;
  for (size_t i = 0; i < messages.size(); ++i) {
    const auto& [role, content] = messages[i];
    wanted = role == "assistant";
    if (llama3) {
      out.marker("<|start_header_id|>", false);
      out.plain(role, false);
      out.marker("<|end_header_id|>", false);
      out.plain("\n\n", false);
      out.plain(trim(content), wanted);
      out.marker(end, wanted);
    } else {
      out.marker("<|im_start|>", false);
      out.plain(role + "\n", false);
      out.plain(content, wanted);
      out.marker(end, wanted);
      // What leads from the last marker to the eos is learnt as well.
      out.plain("\n", wanted && end_is_text && i + 1 == messages.size());
    }
  }
  if (end_is_text) out.eos(wanted);
  return out.take();
}

LabelledTokens render_completion(const Tokenizer& tokenizer, std::string_view prompt,
                                 std::string_view completion) {
  Rendering out(tokenizer);
  out.plain(prompt, false);
  out.plain(completion, true);
  out.eos(true);
  return out.take();
}

}  // namespace longreach::data
