// A rank that is not here, for plans of what it would send.
#pragma once
#include <vector>

#include "distributed/communicator.h"

namespace longreach {

// Knows its number and how many there are. Whoever exchanges with it is told so (std::logic_error).
Group absent_rank(int rank, int ranks);

// All of them; of more than eight, eight that are spread over them and stand for all: what is asked of a rank
// takes time with their number.
std::vector<int> ranks_to_ask(int ranks);

}  // namespace longreach
