// One-line messages and name suggestions.
#include "core/error.h"

#include <algorithm>
#include <numeric>

#include "core/utf8.h"

namespace longreach {
namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

}  // namespace

std::string one_line(std::string_view message, size_t limit) {
  std::string line;
  size_t characters = 0;
  for (size_t at = 0; at < message.size();) {
    if (++characters > limit) {
      line.resize(line.size() - std::min<size_t>(line.size(), 3));
      while (!line.empty() && (static_cast<unsigned char>(line.back()) & 0xC0) == 0x80) line.pop_back();
      return line + "...";
    }
    const size_t length = utf8_length(message, at);
    const auto byte = static_cast<unsigned char>(message[at]);
    // C1 controls (U+0080..U+009F) are two bytes C2 80..C2 9F.
    const bool c1 = length == 2 && byte == 0xC2 && static_cast<unsigned char>(message[at + 1]) < 0xA0;
    if (length == 0 || byte < 0x20 || byte == 0x7F || c1)
      line += byte == '\n' || byte == '\t' ? ' ' : '?';
    else
      line += message.substr(at, length);
    at += std::max<size_t>(length, 1);
  }
  return line;
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  if (word.size() > 64) return {};  // nothing of ours is that long; keeps hostile input cheap
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const auto& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string best = nearest(word, candidates);
  return best.empty() ? std::string{} : text(", did you mean `", best, "`?");
}

std::string join(const std::vector<std::string>& words, std::string_view separator) {
  std::string joined;
  for (const auto& word : words) {
    if (!joined.empty()) joined += separator;
    joined += word;
  }
  return joined;
}

}  // namespace longreach
