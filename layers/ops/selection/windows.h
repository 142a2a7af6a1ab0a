// Windows of each document. Not a public header.
#pragma once
#include <vector>

#include "layers/ops/selection/selection.h"

namespace longreach::selection {

// Bounds of documents, whatever their total (ShapeError, DtypeError). Undefined is allowed.
void check_documents(const at::Tensor& cu_seqlens);
// Arguments of pool_blocks.
void check_pool(const at::Tensor& x, const std::vector<Pool>& pools, const PoolWindows& windows);
// Documents whose keys are the tokens. Throws ShapeError for windows that are none.
std::vector<PackedDocument> document_windows(const PoolWindows& windows, int64_t tokens);

}  // namespace longreach::selection
