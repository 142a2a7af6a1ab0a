// What a rank throws that can't go on because of another one.
#pragma once
#include <string>
#include <vector>

#include "core/error.h"

namespace longreach {

// Another rank failed, or did not come in time. The message names it, and what it was waited for. A transport
// is never repaired: the process ends, with exit code 1.
struct RankError : Error {
  using Error::Error;
};

// "rank 1", "ranks 0, 2"
inline std::string named_ranks(const std::vector<int>& ranks) {
  std::vector<std::string> words;
  for (const int rank : ranks) words.push_back(text(rank));
  return (ranks.size() == 1 ? "rank " : "ranks ") + join(words);
}

}  // namespace longreach
