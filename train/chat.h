// A conversation with a model, turn by turn, in the chat template that came with it.
#pragma once
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "data/corpora/chat_format.h"
#include "models/generate.h"
#include "train/saved_model.h"

namespace longreach {

class Chat {
 public:
  // system: what the conversation begins with; empty: nothing, or what the template puts there by itself.
  // sampling: stop_tokens are added to it, the special token that ends a turn in the template, eos, and those
  // of generation_config.json. Throws CheckpointError where the model came without a tokenizer or a template,
  // DataError for a template that is not understood.
  Chat(const SavedModel& saved, SamplingOptions sampling, const std::string& system);

  // What the model answers to the conversation so far and `message`, without the token that ends it; on_text
  // gets it piece by piece. Both become part of the conversation. Throws DataError where the template refuses
  // the conversation.
  std::string answer(const std::string& message, const std::function<void(std::string_view)>& on_text);

 private:
  std::shared_ptr<Transformer> model_;
  std::shared_ptr<const data::Tokenizer> tokenizer_;
  std::shared_ptr<const data::ChatFormat> format_;
  SamplingOptions sampling_;
  nlohmann::ordered_json conversation_;
};

}  // namespace longreach
