// A prompt, a model and its tokenizer to text: what `generate` and the sample at the end of a run share.
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizers/tokenizer.h"
#include "models/generate.h"

namespace longreach {

// What a model reads for the tokens of a text: they follow the tokenizer's bos where `begins_with_bos` says
// so and they do not begin with it.
std::vector<int64_t> prompt_tokens(const data::Tokenizer& tokenizer, const std::vector<data::Token>& text,
                                   bool begins_with_bos);

struct TextRequest {
  std::string prompt;             // empty: the tokenizer's first token, unseen
  bool begins_with_bos = false;   // whether bos goes before the prompt, unseen, where it does not begin so
  std::vector<std::string> stop;  // generated text ends before the first of these
  std::string chat_template;      // of the conversations that the model was taught; its turns end the text
  SamplingOptions sampling;       // the tokenizer's are added to stop_tokens; drawable follows from it
  std::function<void(data::Token)> on_token;      // each new token, the one that ends the text included
  std::function<void(std::string_view)> on_text;  // the text piece by piece, the prompt included
};

// Returns the text: the prompt as the tokenizer gives it back, and what follows it, without the token or the
// text that ended it. Ends at the tokenizer's eos, at an end of turn of the chat template, at a stop text, or
// at max_new_tokens. Only tokens that the tokenizer knows are drawn. Throws UserError for an empty stop text,
// for an empty prompt when the tokenizer has no token to begin with, and for mechanisms that cannot decode.
std::string generate_text(Transformer& model, const data::Tokenizer& tokenizer, TextRequest request);

}  // namespace longreach
