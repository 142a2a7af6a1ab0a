// Whether a model finds a fact in a long text: by the length of the text and the depth of the fact.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/synthetic/sample.h"
#include "train/saved_model.h"

namespace longreach {

struct LongContextOptions {
  std::vector<std::string> tasks;  // those of data::synthetic_tasks that hide a fact
  std::vector<int64_t> lengths;    // tokens of prompt and reply
  std::vector<double> depths;
  int64_t samples = 5;  // of each length and depth
  uint64_t seed = 0;
  std::string haystack;  // text file in which niah hides its needle; empty: the sentences of passkey
  data::PromptForm form = data::plain_prompt;
  bool begins_with_bos = false;  // whether bos goes before a prompt that does not begin so
};

struct LongContextAnswer {
  std::string expected, reply;  // what the model was to say, and has said
  bool right = false;           // the reply's first number is the answer's
  double nll = 0;               // of the answer, nats a token
  int64_t tokens = 0;           // of the prompt, bos included
  double depth = 0;             // measured
};

struct LongContextCell {
  std::string task;
  int64_t length = 0;
  double depth = 0;  // asked for
  std::vector<LongContextAnswer> answers;

  double accuracy() const;
  double nll() const;  // mean of the answers'
};

// Called before the first sample and after each one.
using LongContextProgress = std::function<void(int64_t done, int64_t samples)>;

// The longest text that the model's positions are made for: max_position_embeddings, or what its rope scaling
// stretches them to and decoding can reach.
int64_t positions_of(const ModelConfig& config);

// Replies are decoded greedily, at most 16 tokens of them; the likelihood of the answer is that of a forward
// pass. By task, length and depth, in the order of the options. Throws UserError before the model computes
// anything: a length beyond positions_of or too short for its question, a mechanism that cannot decode.
std::vector<LongContextCell> evaluate_long_context(const SavedModel& saved, const LongContextOptions& options,
                                                   const LongContextProgress& progress = nullptr);

// The first digits of a text that stand together; empty: it has none.
std::string first_number(const std::string& text);

}  // namespace longreach
