#include "train/generate_text.h"

#include <algorithm>

#include "core/error.h"
#include "data/corpora/chat.h"
#include "data/tokenizers/known_ids.h"
#include "train/text_stream.h"

namespace longreach {
namespace {

// Where the template's marker is no token of the tokenizer it is spelt out, and ends the text as a text.
void stop_at_end_of_turn(const data::Tokenizer& tokenizer, TextRequest& request) {
  if (request.chat_template.empty()) return;
  const std::string_view marker = data::end_of_turn(request.chat_template);
  if (const auto id = tokenizer.id_of(marker))
    request.sampling.stop_tokens.push_back(*id);
  else
    request.stop.emplace_back(marker);
}

void take_tokenizer(const data::Tokenizer& tokenizer, TextRequest& request) {
  request.sampling.drawable = data::known_ids(tokenizer);
  if (const auto eos = tokenizer.eos()) request.sampling.stop_tokens.push_back(*eos);
  stop_at_end_of_turn(tokenizer, request);
}

}  // namespace

std::vector<int64_t> prompt_tokens(const data::Tokenizer& tokenizer, const std::vector<data::Token>& text,
                                   bool begins_with_bos) {
  std::vector<int64_t> fed(text.begin(), text.end());
  if (const auto bos = tokenizer.bos(); begins_with_bos && bos && (fed.empty() || fed[0] != *bos))
    fed.insert(fed.begin(), *bos);
  return fed;
}

std::string generate_text(Transformer& model, const data::Tokenizer& tokenizer, TextRequest request) {
  for (const std::string& stop : request.stop)
    check(!stop.empty(), "stop: expected a text, found an empty one");
  take_tokenizer(tokenizer, request);
  const std::vector<data::Token> prompt = tokenizer.encode(request.prompt);
  std::vector<int64_t> fed = prompt_tokens(tokenizer, prompt, request.begins_with_bos);
  if (fed.empty()) {
    const auto first = tokenizer.bos() ? tokenizer.bos() : tokenizer.eos();
    check(first.has_value(), "prompt: the tokenizer has no token to begin a text with; expected a prompt");
    fed.push_back(*first);
  }
  TextStream stream(tokenizer, prompt, request.stop, [&](std::string_view piece) {
    if (request.on_text) request.on_text(piece);
  });
  const std::vector<int64_t>& ends = request.sampling.stop_tokens;
  generate(model, fed, request.sampling, [&](int64_t id) {
    const auto token = static_cast<data::Token>(id);
    if (request.on_token) request.on_token(token);
    return std::find(ends.begin(), ends.end(), id) != ends.end() || stream.add(token);
  });
  stream.finish();
  return stream.text();
}

}  // namespace longreach
