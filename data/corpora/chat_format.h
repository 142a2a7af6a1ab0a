// The chat template that came with a tokenizer, and conversations as tokens by it: what a model is asked, and
// what is learnt of an example.
#pragma once
#include <ctime>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/chat_template/chat_template.h"
#include "data/corpora/chat.h"
#include "data/tokenizers/tokenizer.h"

namespace longreach::data {

class ChatFormat {
 public:
  // files: those of a tokenizer, name -> contents (chat_template.jinja, tokenizer_config.json,
  // special_tokens_map.json); where: their folder, for errors. Null where they hold no template. The template
  // itself is read when it is first used. Throws DataError naming the file.
  static std::shared_ptr<const ChatFormat> from_files(const std::map<std::string, std::string>& files,
                                                      const std::string& where);
  // spec: as load_tokenizer takes it.
  static std::shared_ptr<const ChatFormat> of_tokenizer(const std::string& spec);

  // Names template and special tokens: a store of tokens depends on both.
  std::string fingerprint() const;

  // conversation: an object with `messages`, and what else the template knows (`tools`). Special tokens that
  // the template writes become those tokens; written in a message they stay text. The ids are those of
  // apply_chat_template of transformers otherwise; nothing is put before or behind them. Throws DataError
  // where the template is not understood or refuses the conversation.
  std::vector<Token> prompt(const Tokenizer& tokenizer, const nlohmann::ordered_json& conversation) const;

  // The text of a prompt, special tokens as they are written. now: what the template takes for the time where
  // it asks. Throws as prompt does.
  std::string prompt_text(const nlohmann::ordered_json& conversation, std::time_t now) const;

  struct Example {
    LabelledTokens tokens;
    int64_t turns_not_learnt = 0;
  };
  // Labels are what the assistant has to write: where the template has {% generation %}, what stands in it;
  // else of every turn of the assistant what follows the prompt for it, with the last special token in it,
  // which ends the turn. A turn that the template writes otherwise once more messages follow (thinking that
  // is dropped) is not what the model would write, and has no labels. Without a special token at the end of
  // the last turn the tokenizer's eos follows.
  Example example(const Tokenizer& tokenizer, const nlohmann::ordered_json& conversation) const;

  // The special token that ends a turn of the assistant; nothing where there is none.
  std::optional<Token> end_of_turn(const Tokenizer& tokenizer) const;

 private:
  ChatFormat(std::string source, std::string where, nlohmann::ordered_json tokens,
             std::vector<std::string> markers)
      : source_(std::move(source)),
        where_(std::move(where)),
        tokens_(std::move(tokens)),
        markers_(std::move(markers)) {}

  ChatTemplate::Rendered render(const nlohmann::ordered_json& conversation, bool add_generation_prompt,
                                std::time_t now = std::time(nullptr)) const;
  const ChatTemplate& parsed() const;
  nlohmann::ordered_json protect(const Tokenizer& tokenizer, const nlohmann::ordered_json& value) const;

  std::string source_, where_;
  nlohmann::ordered_json tokens_;     // bos_token, eos_token, ...: as the template sees them
  std::vector<std::string> markers_;  // special tokens, the longest first
  mutable std::mutex parsing_;
  mutable std::optional<ChatTemplate> parsed_;
};

// chat_template: "checkpoint" (that of the tokenizer, which must have one), "auto" (that of the tokenizer
// where it has one), or a name that render_chat knows, for which this is null.
std::shared_ptr<const ChatFormat> chat_format_of(const std::string& chat_template,
                                                 const std::string& tokenizer);

}  // namespace longreach::data
