// From the text of a pattern to the graph that SplitRegex runs.
#pragma once
#include <limits>
#include <string_view>
#include <vector>

#include "data/tokenizers/split_regex.h"

namespace longreach::data {

inline constexpr int kUnbounded = std::numeric_limits<int>::max();

struct RegexProgram {
  std::vector<SplitRegex::Node> nodes;
  std::vector<CharSet> sets;
  int start = -1;
};

// Throws DataError naming the construct that is not understood and where it stands.
RegexProgram parse_regex(std::string_view pattern);

}  // namespace longreach::data
