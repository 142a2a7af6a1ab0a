// Windows of each document. Not a public header.
#pragma once
#include <vector>

#include "layers/ops/selection/selection.h"

namespace longreach::selection {

// The windows of one document of `tokens` tokens: first_token of the tensor, first_window of the pooled one.
struct DocumentWindows {
  int64_t first_token, tokens, first_window, windows;
};

// Bounds of documents, whatever their total (ShapeError, DtypeError). Undefined is allowed.
void check_documents(const at::Tensor& cu_seqlens);
// Arguments of pool_blocks.
void check_pool(const at::Tensor& x, const std::vector<Pool>& pools, const PoolWindows& windows);
// One entry for the whole row when cu_seqlens is undefined. Throws ShapeError for windows that are none.
std::vector<DocumentWindows> document_windows(const PoolWindows& windows, int64_t tokens);

}  // namespace longreach::selection
