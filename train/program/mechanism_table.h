// README's table of mechanisms, from what they declare and which files they have.
#pragma once
#include <string>

namespace longreach {

// Markdown with paths from the root of the tree: a row a kind, grouped by `family` in the order of the closed
// list. A cell is a file of the mechanism's folder; one that is not there is an empty cell.
std::string mechanism_table();

}  // namespace longreach
