// Where a rank that is not the first one speaks.
#pragma once
#include <fstream>
#include <streambuf>
#include <string>

namespace longreach {

// What is printed and warned of goes to FOLDER/ranks/rank-N.log for as long as this lives; a terminal belongs
// to the first rank. Throws ConfigError when the file cannot be written.
class RankOutput {
 public:
  RankOutput(const std::string& folder, int rank);
  ~RankOutput();
  RankOutput(const RankOutput&) = delete;
  RankOutput& operator=(const RankOutput&) = delete;

 private:
  std::ofstream file_;
  int stdout_before_;
  std::streambuf* cerr_before_;
};

}  // namespace longreach
