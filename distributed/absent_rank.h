// A rank that is not here, for plans of what it would send.
#pragma once
#include "distributed/communicator.h"

namespace longreach {

// Knows its number and how many there are. Whoever exchanges with it is told so (std::logic_error).
Group absent_rank(int rank, int ranks);

}  // namespace longreach
