// What the fused recurrence asks of its arguments; not a public header.
#pragma once
#include <ATen/core/Tensor.h>

#include "layers/ops/recurrence/recurrence.h"

namespace longreach {

// Throws ShapeError or DtypeError naming the argument.
void check_recurrence(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      const at::Tensor& log_decay, const at::Tensor& initial_state,
                      const at::Tensor& cu_seqlens, const RecurrenceOptions& options);

}  // namespace longreach
