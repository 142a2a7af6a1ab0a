// One JSON object of a corpus as tokens: a text, or a fine-tuning example in one of the forms that data sets
// have.
#pragma once
#include <map>
#include <optional>
#include <set>
#include <string>

#include "data/corpora/chat_format.h"
#include "data/corpora/json_records.h"

namespace longreach::data {

// What the examples of a corpus hold; every rule by which they are read is said once, on stderr.
class ExampleNotes {
 public:
  void say(const std::string& where, const std::string& rule);
  void count(const LabelledTokens& example);
  void role(const std::string& as_found) { ++roles_[as_found]; }
  int64_t labels() const { return labels_; }
  std::string roles() const;  // "user (12), gpt (12)"

 private:
  std::set<std::string> said_;
  std::map<std::string, int64_t> roles_;
  int64_t labels_ = 0;
};

// How the file is read: .jsonl and .ndjson by lines; .json that is an array of objects, or several objects,
// or one with a text or example in it, by objects; a name without an ending by lines when the first line is
// such an object. Throws DataError for an array of other things.
RecordForm record_form(const std::string& path, const std::string& text_key);

// True when the object is a fine-tuning example (`messages`; ShareGPT's `conversations`; `prompt` and
// `completion`; Alpaca's `instruction`, `input`, `output`), false when it is plain text under `text_key`.
// `where` is "file:line" for the error. Throws DataError for anything else.
bool is_example(const std::string& line, const std::string& text_key, const std::string& where);

// How conversations are written out: by the tokenizer's own template, or, where that is null, as render_chat
// does by the name. Texts and prompts that are no conversation begin with bos where it is given.
struct ChatChoice {
  std::string name;
  const ChatFormat* own = nullptr;
  std::optional<Token> bos;
};

// The mask is empty for plain text, which ends with eos.
LabelledTokens encode_json_line(const std::string& line, const Tokenizer& tokenizer,
                                const std::string& text_key, const ChatChoice& chat, const std::string& where,
                                ExampleNotes& notes);

}  // namespace longreach::data
