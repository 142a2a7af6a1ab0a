// One line of a JSONL corpus as tokens.
#pragma once
#include <string>

#include "data/chat.h"

namespace longreach::data {

// True when the line is a fine-tuning example (`messages`, or `prompt` and `completion`), false when it is
// plain text under `text_key`. `where` is "file:line" for the error. Throws DataError for anything else.
bool is_example(const std::string& line, const std::string& text_key, const std::string& where);

// The mask is empty for plain text, which ends with eos.
LabelledTokens encode_json_line(const std::string& line, const Tokenizer& tokenizer,
                                const std::string& text_key, const std::string& chat_template,
                                const std::string& where);

}  // namespace longreach::data
