// Every sample is read twice: by decoding, whose reply counts, and by a forward pass, which weighs an answer
// that the reply may not give.
#include "train/long_context.h"

#include <ATen/ops/full_like.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <numeric>

#include "data/tokenizers/known_ids.h"
#include "models/generate.h"
#include "train/generate_text.h"

namespace longreach {
namespace {

constexpr int64_t kReplyTokens = 16;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

SamplingOptions greedy_options(const SavedModel& saved) {
  SamplingOptions options{.max_new_tokens = kReplyTokens, .temperature = 0.0};
  options.stop_tokens = saved.ends_of_text();
  if (const auto eos = saved.tokenizer->eos()) options.stop_tokens.push_back(*eos);
  options.drawable = data::known_ids(*saved.tokenizer);
  return options;
}

// Ends as soon as a number is complete.
std::string reply_to(const std::vector<int64_t>& prompt, const SavedModel& saved,
                     const SamplingOptions& options) {
  std::vector<data::Token> tokens;
  std::string reply;
  generate(*saved.model, prompt, options, [&](int64_t id) {
    if (std::find(options.stop_tokens.begin(), options.stop_tokens.end(), id) != options.stop_tokens.end())
      return false;
    tokens.push_back(static_cast<data::Token>(id));
    reply = saved.tokenizer->decode(tokens);
    return first_number(reply).empty() || is_digit(reply.back());
  });
  return reply;
}

// Nats a token of `answer` behind the prompt.
double nll_of(const std::string& answer, const std::vector<int64_t>& prompt, const SavedModel& saved) {
  data::TextState inside{.place = data::TextState::Place::inside};
  std::vector<int64_t> all = prompt;
  for (const data::Token token : saved.tokenizer->encode_part(answer, false, inside)) all.push_back(token);
  const auto given = std::ssize(prompt), length = std::ssize(all) - 1;
  const at::Tensor ids = at::tensor(all, at::kLong).unsqueeze(0);
  const at::Tensor tokens = ids.narrow(1, 0, length), next = ids.narrow(1, 1, length);
  const at::Tensor labels = at::full_like(next, -100);
  labels.narrow(1, given - 1, length - given + 1).copy_(next.narrow(1, given - 1, length - given + 1));
  const at::Tensor nll = saved.model->token_nll(tokens, labels, whole_rows(1, length));
  return nll.sum(at::kDouble).item<double>() / static_cast<double>(length - given + 1);
}

LongContextAnswer answer_to(const data::SyntheticSample& sample, const std::vector<int64_t>& prompt,
                            const SavedModel& saved, const SamplingOptions& options) {
  LongContextAnswer answer{.expected = first_number(sample.answer),
                           .reply = reply_to(prompt, saved, options),
                           .nll = nll_of(sample.answer, prompt, saved),
                           .tokens = std::ssize(prompt),
                           .depth = sample.depth};
  answer.right = first_number(answer.reply) == answer.expected;
  return answer;
}

double mean(const std::vector<LongContextAnswer>& answers, double (*figure)(const LongContextAnswer&)) {
  double sum = 0;
  for (const LongContextAnswer& answer : answers) sum += figure(answer);
  return sum / static_cast<double>(answers.size());
}

class Sampler {
 public:
  Sampler(const LongContextOptions& options, const data::Tokenizer& tokenizer)
      : options_(options),
        tokenizer_(tokenizer),
        repeated_(data::Haystack::repeated(tokenizer)),
        given_(options.haystack.empty() ? repeated_ : data::Haystack::of_file(options.haystack, tokenizer)) {}

  data::SyntheticSample sample(const LongContextCell& cell, int64_t number) const {
    return data::synthesize({.task = cell.task,
                             .length = cell.length,
                             .reply_tokens = kReplyTokens + (options_.begins_with_bos ? 1 : 0),
                             .depth = cell.depth,
                             .seed = options_.seed,
                             .sample = number},
                            cell.task == "niah" ? given_ : repeated_, tokenizer_, options_.form);
  }

 private:
  const LongContextOptions& options_;
  const data::Tokenizer& tokenizer_;
  data::Haystack repeated_, given_;
};

std::vector<LongContextCell> cells_of(const LongContextOptions& options) {
  std::vector<LongContextCell> cells;
  for (const std::string& task : options.tasks)
    for (const int64_t length : options.lengths)
      for (const double depth : options.depths)
        cells.push_back({.task = task, .length = length, .depth = depth});
  return cells;
}

void expect_lengths(const ModelConfig& config, const LongContextOptions& options) {
  const int64_t positions = positions_of(config);
  for (const int64_t length : options.lengths)
    check(length <= positions, "length ", length, ": the model has positions for ", positions,
          " tokens (max_position_embeddings, and its rope_scaling); expected no more");
}

}  // namespace

double LongContextCell::accuracy() const {
  return mean(answers, [](const LongContextAnswer& answer) { return answer.right ? 1.0 : 0.0; });
}

double LongContextCell::nll() const {
  return mean(answers, [](const LongContextAnswer& answer) { return answer.nll; });
}

int64_t positions_of(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  const int64_t original = rope.original_max_position_embeddings > 0 ? rope.original_max_position_embeddings
                                                                     : config.max_position_embeddings;
  if (!config.uses_rope() || rope.rope_type == "default") return config.max_position_embeddings;
  // Its angles change with every token behind the original length, which decoding refuses.
  if (rope.rope_type == "dynamic") return original;
  const auto stretched = static_cast<int64_t>(rope.factor * static_cast<double>(original));
  return std::max(config.max_position_embeddings, stretched);
}

std::string first_number(const std::string& text) {
  const auto begin = std::find_if(text.begin(), text.end(), is_digit);
  return {begin, std::find_if_not(begin, text.end(), is_digit)};
}

std::vector<LongContextCell> evaluate_long_context(const SavedModel& saved, const LongContextOptions& options,
                                                   const LongContextProgress& progress) {
  const data::Tokenizer& tokenizer = saved.expect_tokenizer();
  expect_ability(saved.config.model.attention, Ability::decoding, "--tasks " + join(options.tasks, ","));
  expect_lengths(saved.config.model, options);
  const SamplingOptions sampling = greedy_options(saved);
  const Sampler sampler(options, tokenizer);
  std::vector<LongContextCell> cells = cells_of(options);
  for (const LongContextCell& cell : cells) sampler.sample(cell, 0);  // refuses what is too short
  const int64_t all = std::ssize(cells) * options.samples;
  int64_t done = 0;
  const auto report = [&] {
    if (progress) progress(done, all);
  };
  const auto answer = [&](const LongContextCell& cell, int64_t number) {
    const data::SyntheticSample sample = sampler.sample(cell, number);
    const auto prompt = prompt_tokens(tokenizer, tokenizer.encode(sample.prompt), options.begins_with_bos);
    return answer_to(sample, prompt, saved, sampling);
  };
  report();
  for (LongContextCell& cell : cells)
    for (int64_t number = 0; number < options.samples; ++number, ++done, report())
      cell.answers.push_back(answer(cell, number));
  return cells;
}

}  // namespace longreach
