// Who sends which tokens to whom, from what every rank wants. Equal on all ranks, so nothing is asked for.
#pragma once
#include <functional>
#include <vector>

#include "distributed/communicator.h"
#include "distributed/sequence_layout.h"

namespace longreach {

struct FetchPlan {
  // Own tokens for each rank, [begin, end) among the rank's own, end to end in the order it wants them.
  std::vector<std::vector<Interval>> send;
  Splits send_rows, receive_rows;  // of all_to_all
  // Of what arrives (rank 0's rows first): the pieces that put it into the order in which it was wanted.
  std::vector<Interval> take;

  int64_t wanted = 0;       // tokens that arrive, own ones included
  int64_t most_wanted = 0;  // by any rank
};

// wants(rank): tokens of the whole row, in the order in which they shall lie; own tokens too, if they are
// wanted, cost nothing. Throws ShapeError for tokens that nobody owns.
FetchPlan plan_fetch(const SequenceLayout& layout, int rank,
                     const std::function<std::vector<Interval>(int rank)>& wants);

}  // namespace longreach
