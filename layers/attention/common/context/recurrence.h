// Linear recurrences over a row that several ranks share: one operator for every kind with a state.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string_view>

#include "distributed/context_group.h"
#include "layers/attention/planned_traffic.h"
#include "layers/ops/recurrence/recurrence.h"

namespace longreach {

struct PiecesOfRecurrence {
  at::Tensor q, k, v;    // [1, n, H, Dk], [1, n, HK, Dk], [1, n, HV, Dv]: of this rank's own tokens, n >= 0
  at::Tensor log_decay;  // undefined, [H] or [1, n, H]: as of recurrence()
};

// o [1, n, H, Dv] of this rank's own tokens: what recurrence() gives where one rank has the whole row.
// Differentiable as recurrence() is.
//
// Forward: the states that spans leave, the scan (scan.h), one pass from the states that enter. Backward: the
// gradients of the states that enter, the scan reversed, one backward pass from the gradients of the states
// that leave. So o, dq, dk and dv are sums in float32 that are rounded once, as on one rank, and what is kept
// between the passes is what this rank's own tokens need. The exchanges and their use are one operator, since
// an exchange whose result nobody uses on some rank would leave that rank's tape, and the others wait for it.
// All ranks of the group call it, and backward through it, in the same order.
at::Tensor recurrence_in_pieces(std::shared_ptr<const ContextGroup> group, const PiecesOfRecurrence& input,
                                Implementation implementation, const RecurrenceOptions& options,
                                std::string_view label);

// What it sends, of H heads, Dk and Dv features.
PlannedTraffic planned_recurrence(const std::shared_ptr<const ContextGroup>& group, int64_t heads, int64_t dk,
                                  int64_t dv, at::ScalarType dtype, std::string_view label);

}  // namespace longreach
