#include "train/chat.h"

#include <algorithm>

#include "core/error.h"
#include "data/tokenizers/known_ids.h"
#include "train/text_stream.h"
#include "train/tokenizer_export.h"

namespace longreach {

Chat::Chat(const SavedModel& saved, SamplingOptions sampling, const std::string& system)
    : model_(saved.model), tokenizer_(saved.tokenizer), sampling_(std::move(sampling)) {
  saved.expect_tokenizer();
  format_ = data::ChatFormat::from_files(tokenizer_export(saved), saved.path);
  check<CheckpointError>(
      format_ != nullptr, one_line(saved.path),
      ": the model came without a chat template (chat_template.jinja, or `chat_template` in "
      "tokenizer_config.json), which --chat needs");
  sampling_.drawable = data::known_ids(*tokenizer_);
  sampling_.stop_tokens = saved.ends_of_text();
  for (const auto& end : {tokenizer_->eos(), format_->end_of_turn(*tokenizer_)})
    if (end) sampling_.stop_tokens.push_back(*end);
  conversation_["messages"] = nlohmann::ordered_json::array();
  if (!system.empty()) conversation_["messages"].push_back({{"role", "system"}, {"content", system}});
}

std::string Chat::answer(const std::string& message, const std::function<void(std::string_view)>& on_text) {
  auto asked = conversation_;
  asked["messages"].push_back({{"role", "user"}, {"content", message}});
  const std::vector<data::Token> prompt = format_->prompt(*tokenizer_, asked);
  TextStream stream(*tokenizer_, {}, {}, on_text);
  const std::vector<int64_t>& ends = sampling_.stop_tokens;
  generate(*model_, {prompt.begin(), prompt.end()}, sampling_, [&](int64_t id) {
    return std::find(ends.begin(), ends.end(), id) != ends.end() || stream.add(static_cast<data::Token>(id));
  });
  stream.finish();
  asked["messages"].push_back({{"role", "assistant"}, {"content", stream.text()}});
  conversation_ = std::move(asked);
  return stream.text();
}

}  // namespace longreach
