// Samples are encoded whole, as a prompt is, and not counted together from their parts: how many sentences
// fit is guessed from the tokens of each sentence by itself, and then found.
#include "data/synthetic/sample.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/error.h"
#include "data/synthetic/question.h"

namespace longreach::data {
namespace {

constexpr const char* kCopy = "copy";

int64_t tokens_of(const std::string& text, const Tokenizer& tokenizer) {
  return std::ssize(tokenizer.encode(text));
}

int64_t reply_tokens(const SampleOptions& options, const std::string& answer, const Tokenizer& tokenizer) {
  TextState inside{.place = TextState::Place::inside};
  return std::max(options.reply_tokens, std::ssize(tokenizer.encode_part(answer, false, inside)) + 1);
}

Draws draws_of(const SampleOptions& options) {
  const auto task = std::find(synthetic_tasks().begin(), synthetic_tasks().end(), options.task);
  const auto number = static_cast<uint64_t>(task - synthetic_tasks().begin());
  const uint64_t place =
      random_bits(number, static_cast<uint64_t>(options.length), std::bit_cast<uint64_t>(options.depth));
  return {options.seed, random_bits(place, 0, static_cast<uint64_t>(options.sample))};
}

// The most parts >= 1 whose cost is within `budget`. guess, mean: about how many, and what one costs. Throws
// DataError when one is too much.
int64_t most_that_fit(const std::function<int64_t(int64_t)>& cost, int64_t budget, int64_t guess, double mean,
                      const SampleOptions& options) {
  const int64_t least = cost(1);
  check<DataError>(least <= budget, "length ", options.length, ": too short for ", options.task,
                   ", of which the shortest sample here takes ", options.length - budget + least, " tokens");
  int64_t fit = 1, too_many = budget + 2;  // no part has less than a token
  for (int64_t parts = guess; too_many - fit > 1;) {
    parts = std::clamp(parts, fit + 1, too_many - 1);
    const int64_t left = budget - cost(parts);
    (left >= 0 ? fit : too_many) = parts;
    parts += static_cast<int64_t>(std::floor(static_cast<double>(left) / mean));
  }
  return fit;
}

// A text with a fact in it, and where in the request they lie.
struct Hidden {
  std::string request;
  size_t text_begin = 0, fact_begin = 0, fact_end = 0, text_end = 0;
};

class NeedleSample {
 public:
  NeedleSample(const SampleOptions& options, const Haystack& haystack)
      : depth_(options.depth), haystack_(haystack) {
    Draws draws = draws_of(options);
    first_ = static_cast<int64_t>(draws.below(static_cast<uint64_t>(haystack.size())));
    const auto met = [&](const std::string& words) { return haystack.contains(words); };
    do needle_ = draw_needle(options.task, draws);
    while (std::any_of(needle_.unique.begin(), needle_.unique.end(), met));
  }

  const Needle& needle() const { return needle_; }
  // About how many sentences have so many tokens.
  int64_t sentences_of(int64_t tokens) const {
    return static_cast<int64_t>(static_cast<double>(tokens) / haystack_.mean_tokens());
  }

  Hidden with(int64_t sentences) const {
    const int64_t before = sentences_before(sentences);
    const std::string gap = needle_.own_line ? "\n" : " ";
    const std::string head = haystack_.text(first_, before),
                      tail = haystack_.text(first_ + before, sentences - before);
    Hidden hidden{.request = needle_.introduction + "\n"};
    hidden.text_begin = hidden.request.size();
    if (!head.empty()) hidden.request += head + gap;
    hidden.fact_begin = hidden.request.size();
    hidden.request += needle_.fact;
    hidden.fact_end = hidden.request.size();
    if (!tail.empty()) hidden.request += gap + tail;
    hidden.text_end = hidden.request.size();
    hidden.request += "\n" + needle_.question;
    return hidden;
  }

 private:
  // Those before the fact whose part of the tokens is nearest to the depth.
  int64_t sentences_before(int64_t sentences) const {
    const double wanted = depth_ * static_cast<double>(haystack_.tokens(first_, sentences));
    const auto miss = [&](int64_t n) {
      return std::abs(static_cast<double>(haystack_.tokens(first_, n)) - wanted);
    };
    int64_t low = 0, high = sentences;  // the first that reaches it lies within
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (static_cast<double>(haystack_.tokens(first_, middle)) < wanted)
        low = middle + 1;
      else
        high = middle;
    }
    return low > 0 && miss(low - 1) < miss(low) ? low - 1 : low;
  }

  double depth_;
  const Haystack& haystack_;
  int64_t first_ = 0;  // sentence of the haystack
  Needle needle_;
};

// In tokens of the prompt.
double depth_of(const Hidden& hidden, const std::string& prompt, const Tokenizer& tokenizer) {
  const size_t request = prompt.find(hidden.request);
  check<DataError>(request != std::string::npos,
                   "the chat template does not write what the user says as it is; expected one that does");
  const auto tokens_up_to = [&](size_t place) {
    return static_cast<double>(tokens_of(prompt.substr(0, request + place), tokenizer));
  };
  const double before = tokens_up_to(hidden.fact_begin) - tokens_up_to(hidden.text_begin);
  const double after = tokens_up_to(hidden.text_end) - tokens_up_to(hidden.fact_end);
  return before / (before + after);
}

SyntheticSample synthesize_needle(const SampleOptions& options, const Haystack& haystack,
                                  const Tokenizer& tokenizer, const PromptForm& form) {
  const NeedleSample sample(options, haystack);
  const Needle& needle = sample.needle();
  const auto prompt_of = [&](const Hidden& hidden) { return form(hidden.request, needle.beginning); };
  const int64_t budget = options.length - reply_tokens(options, needle.answer, tokenizer);
  const int64_t sentences =
      most_that_fit([&](int64_t n) { return tokens_of(prompt_of(sample.with(n)), tokenizer); }, budget,
                    sample.sentences_of(budget), haystack.mean_tokens(), options);
  const Hidden hidden = sample.with(sentences);
  SyntheticSample result{.request = hidden.request, .beginning = needle.beginning, .answer = needle.answer};
  result.prompt = prompt_of(hidden);
  result.tokens = tokens_of(result.prompt, tokenizer);
  result.depth = depth_of(hidden, result.prompt, tokenizer);
  return result;
}

SyntheticSample copy_of(int64_t words, const SampleOptions& options, const PromptForm& form) {
  Draws draws = draws_of(options);
  const std::string list = draw_words(words, draws);
  SyntheticSample result{
      .request = "Copy the following words.\n" + list, .beginning = "The words are:", .answer = " " + list};
  result.prompt = form(result.request, result.beginning);
  return result;
}

SyntheticSample synthesize_copy(const SampleOptions& options, const Tokenizer& tokenizer,
                                const PromptForm& form) {
  const auto cost = [&](int64_t words) {
    const SyntheticSample sample = copy_of(words, options, form);
    return tokens_of(sample.prompt, tokenizer) + reply_tokens(options, sample.answer, tokenizer);
  };
  constexpr double kWord = 3;  // tokens of a word, which stands there twice
  const int64_t words = most_that_fit(cost, options.length, options.length / 4, kWord, options);
  SyntheticSample sample = copy_of(words, options, form);
  sample.tokens = tokens_of(sample.prompt, tokenizer);
  return sample;
}

}  // namespace

const std::vector<std::string>& synthetic_tasks() {
  static const std::vector<std::string> tasks{"passkey", "niah", kCopy};
  return tasks;
}

bool hides_fact(const std::string& task) { return task != kCopy; }

std::string plain_prompt(const std::string& request, const std::string& beginning) {
  return request + " " + beginning;
}

SyntheticSample synthesize(const SampleOptions& options, const Haystack& haystack, const Tokenizer& tokenizer,
                           const PromptForm& form) {
  const std::vector<std::string>& tasks = synthetic_tasks();
  check<DataError>(std::find(tasks.begin(), tasks.end(), options.task) != tasks.end(), "task `",
                   one_line(options.task, 60), "`, allowed: ", join(tasks),
                   did_you_mean(options.task, tasks));
  return hides_fact(options.task) ? synthesize_needle(options, haystack, tokenizer, form)
                                  : synthesize_copy(options, tokenizer, form);
}

}  // namespace longreach::data
