// What starting another program takes: its environment, words as exec wants them, this very program's path.
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace longreach {

// Our environment with the additions in place of older values, each "NAME=value".
std::vector<std::string> environment_with(const std::vector<std::pair<std::string, std::string>>& additions);
// Pointers into `words`, with a null behind them.
std::vector<char*> exec_pointers(std::vector<std::string>& words);
std::string this_program();

}  // namespace longreach
