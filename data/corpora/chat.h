// Fine-tuning examples as tokens with a loss mask: conversations in the ChatML and Llama-3 templates, and
// prompts with completions. Loss is wanted on what the model has to say: completions, and the assistant's
// turns with the token that ends them.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizers/tokenizer.h"

namespace longreach::data {

struct ChatMessage {
  std::string role, content;
};

struct LabelledTokens {
  std::vector<Token> tokens;
  std::vector<uint8_t> mask;  // 1 where a label is wanted; as long as tokens
};

// What ends a turn in a template: "<|im_end|>" (chatml; auto and checkpoint are chatml where a tokenizer
// brings no template of its own: data/corpora/chat_format.h), "<|eot_id|>" (llama3). One token where the
// tokenizer has it (Tokenizer::id_of), text otherwise. Throws DataError for an unknown template.
std::string_view end_of_turn(std::string_view chat_template);

// chat_template: "chatml" (<|im_start|>role\ncontent<|im_end|>\n) or "llama3" (<|begin_of_text|>, then
// <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|> a message, content trimmed). The template's
// markers are the tokenizer's special tokens where it has them and plain text otherwise; markers inside a
// message are plain text always. Where the end of turn is no special token, the tokenizer's eos ends the
// example, with a label after an assistant's turn, so that there is one token to stop at. Throws DataError
// for an unknown template.
LabelledTokens render_chat(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages,
                           std::string_view chat_template);

// Prompt, completion, eos. The completion is encoded as the going on of the prompt (no space enters), and the
// border between the two is one between tokens, as it is when a prompt is given to generation: the first
// label is the first token of the completion. White space that a SentencePiece tokenizer does not write at a
// text's end belongs to what follows.
LabelledTokens render_completion(const Tokenizer& tokenizer, std::string_view prompt,
                                 std::string_view completion);

}  // namespace longreach::data
