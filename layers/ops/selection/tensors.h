// From tensors and options of selection to the plain data of its kernels. Not a public header.
#pragma once
#include <ATen/core/Tensor.h>

#include "layers/ops/selection/kernels.h"
#include "layers/ops/selection/selection.h"

namespace longreach::selection {

inline VoteKind vote_kind(BlockScores::Vote vote) {
  return vote == BlockScores::Vote::mean  ? VoteKind::mean
         : vote == BlockScores::Vote::sum ? VoteKind::sum
                                          : VoteKind::max;
}

}  // namespace longreach::selection
