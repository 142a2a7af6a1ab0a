// Sentences out of text, and their tokens summed up once.
#include "data/synthetic/haystack.h"

#include <algorithm>

#include "core/error.h"
#include "data/corpora/byte_stream.h"

namespace longreach::data {
namespace {

constexpr size_t kLongestSentence = 400;  // bytes

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f' || c == '\v'; }

bool ends_sentence(char c) { return c == '.' || c == '!' || c == '?'; }

}  // namespace

std::vector<std::string> sentences_of(const std::string& text) {
  std::vector<std::string> sentences;
  std::string sentence;
  const auto finish = [&] {
    if (!sentence.empty()) sentences.push_back(std::move(sentence));
    sentence.clear();
  };
  for (size_t at = 0; at < text.size();) {
    if (is_space(text[at])) {
      const bool line_ends = text[at++] == '\n';
      if (line_ends || sentence.size() >= kLongestSentence ||
          (!sentence.empty() && ends_sentence(sentence.back())))
        finish();
      continue;
    }
    size_t end = at;
    while (end < text.size() && !is_space(text[end])) ++end;
    if (!sentence.empty()) sentence += ' ';
    sentence.append(text, at, end - at);
    at = end;
  }
  finish();
  return sentences;
}

Haystack::Haystack(std::vector<std::string> sentences, const Tokenizer& tokenizer)
    : sentences_(std::move(sentences)), before_{0} {
  for (const std::string& sentence : sentences_)
    before_.push_back(before_.back() + std::ssize(tokenizer.encode(" " + sentence, false)));
}

Haystack Haystack::repeated(const Tokenizer& tokenizer) {
  return {{"The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.",
           "There and back again."},
          tokenizer};
}

Haystack Haystack::of_file(const std::string& path, const Tokenizer& tokenizer) {
  Haystack haystack(sentences_of(read_whole(path)), tokenizer);
  check<DataError>(haystack.size() > 0, one_line(path), ": holds no text to hide a needle in");
  return haystack;
}

std::string Haystack::text(int64_t first, int64_t count) const {
  std::string joined;
  for (int64_t i = 0; i < count; ++i) {
    if (i > 0) joined += ' ';
    joined += sentences_[static_cast<size_t>((first + i) % size())];
  }
  return joined;
}

bool Haystack::contains(const std::string& words) const {
  return std::any_of(sentences_.begin(), sentences_.end(),
                     [&](const std::string& sentence) { return sentence.find(words) != std::string::npos; });
}

int64_t Haystack::tokens(int64_t first, int64_t count) const {
  const int64_t begin = first % size(), end = begin + count;
  const int64_t rounds = end / size();
  return rounds * before_.back() + before_[static_cast<size_t>(end % size())] -
         before_[static_cast<size_t>(begin)];
}

double Haystack::mean_tokens() const {
  return std::max(1.0, static_cast<double>(before_.back()) / static_cast<double>(size()));
}

}  // namespace longreach::data
