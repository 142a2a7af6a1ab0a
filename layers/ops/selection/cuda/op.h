// Selection on CUDA tensors: work space, launch plans, the device, and what it says of the scores.
#pragma once
#include <ATen/core/Tensor.h>

#include "layers/ops/selection/kernels.h"
#include "layers/ops/selection/selection.h"

namespace longreach::selection {

// As choose_blocks: arguments are checked, scores float32 and contiguous. The host waits for one word that
// says whether a score was NaN (DataError), and, for rules without a fixed number of entries, how many the
// longest list has.
at::Tensor choose_cuda(const at::Tensor& scores, const BlockGeometry& geometry, const SelectionRule& rule);

// As select_blocks: arguments are checked, the last dimensions of q and k dense.
Selection select_cuda(const at::Tensor& q, const at::Tensor& k, int64_t lists, const BlockScores& how,
                      const BlockGeometry& geometry, const SelectionRule& rule, bool keep_scores);

// The pointers of Pooling are those of CUDA tensors, but for documents and pools; `like` is one of them.
void pool_cuda(const Pooling& pooling, const at::Tensor& like);
void pool_backward_cuda(const Pooling& pooling, const at::Tensor& like);

}  // namespace longreach::selection
