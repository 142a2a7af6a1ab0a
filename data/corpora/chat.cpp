// Chat templates. What a conversation is written out to is encoded as one text, as it is when it is given to
// generation as a prompt, but for the places where labels begin or end: no token crosses them.
#include "data/corpora/chat.h"

#include "core/error.h"
#include "data/tokenizers/added_tokens.h"

namespace longreach::data {
namespace {

class Rendering {
 public:
  explicit Rendering(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void plain(std::string_view text, bool wanted) {
    if (wanted != wanted_) encode_pending();
    wanted_ = wanted;
    pending_ += text;
  }
  // A special token, or its text when the tokenizer has no such token.
  void marker(std::string_view text, bool wanted) {
    if (const auto id = tokenizer_.id_of(text))
      token(*id, wanted);
    else
      plain(text, wanted);
  }
  void eos(bool wanted) {
    if (const auto id = tokenizer_.eos()) token(*id, wanted);
  }
  LabelledTokens take() {
    encode_pending();
    return std::move(result_);
  }

 private:
  void token(Token id, bool wanted) {
    const auto strip = tokenizer_.strip_of(id);
    if (strip.left) pending_.resize(skip_space_back(pending_, pending_.size(), 0));
    encode_pending();
    add({id}, wanted);
    state_ = {.place = TextState::Place::apart};
    strip_next_ = strip.right;
  }
  void encode_pending() {
    std::string_view text = pending_;
    if (strip_next_) text.remove_prefix(skip_space(text, 0));
    strip_next_ = strip_next_ && text.empty();
    if (!text.empty()) add(tokenizer_.encode_part(text, false, state_), wanted_);
    pending_.clear();
  }
  void add(const std::vector<Token>& tokens, bool wanted) {
    result_.tokens.insert(result_.tokens.end(), tokens.begin(), tokens.end());
    result_.mask.insert(result_.mask.end(), tokens.size(), wanted ? 1 : 0);
  }

  const Tokenizer& tokenizer_;
  LabelledTokens result_;
  TextState state_;
  std::string pending_;  // text not encoded yet, all of it wanted or none
  bool wanted_ = false, strip_next_ = false;
};

std::string_view trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

}  // namespace

std::string_view end_of_turn(std::string_view chat_template) {
  if (chat_template == "chatml" || chat_template == "auto" || chat_template == "checkpoint")
    return "<|im_end|>";
  check<DataError>(chat_template == "llama3", "chat_template `", one_line(chat_template, 60),
                   "`, allowed: auto, chatml, llama3");
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
