// Samples of the synthetic tasks, of a length in tokens and with the fact at a depth.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/synthetic/haystack.h"
#include "data/tokenizers/tokenizer.h"

namespace longreach::data {

// passkey, niah: a fact hidden in a text, asked for at its end; copy: words to be repeated.
const std::vector<std::string>& synthetic_tasks();
bool hides_fact(const std::string& task);

// The whole prompt for what a user asks and how the reply begins: a chat template's, or plain_prompt.
using PromptForm = std::function<std::string(const std::string& request, const std::string& beginning)>;

// One behind the other, with a space between.
std::string plain_prompt(const std::string& request, const std::string& beginning);

struct SampleOptions {
  std::string task;
  int64_t length = 0;        // tokens of prompt and reply at most
  int64_t reply_tokens = 0;  // kept for the reply; at least those of the answer and one that ends it
  double depth = 0;          // of the fact in the text: 0 is its beginning, 1 its end
  uint64_t seed = 0;
  int64_t sample = 0;  // another number is another sample
};

struct SyntheticSample {
  std::string request, beginning, answer;
  std::string prompt;  // the form's, of request and beginning
  int64_t tokens = 0;  // of the prompt
  double depth = 0;    // measured: the part of the text's tokens that stands before the fact
};

// Of whole sentences: with one more the sample would exceed the length. The same on every machine. haystack:
// of tasks that hide a fact. Throws DataError for an unknown task, and for a length in which the question
// has no place.
SyntheticSample synthesize(const SampleOptions& options, const Haystack& haystack, const Tokenizer& tokenizer,
                           const PromptForm& form = plain_prompt);

}  // namespace longreach::data
