// Windows of each document. Not a public header.
#pragma once
#include <vector>

#include "layers/ops/selection/selection.h"

namespace longreach::selection {

// The windows of one document of `tokens` tokens: first_token of the tensor, first_window of the pooled one.
struct DocumentWindows {
  int64_t first_token, tokens, first_window, windows;
};

void check_windows(const PoolWindows& windows);
// One entry for the whole row when cu_seqlens is undefined.
std::vector<DocumentWindows> document_windows(const PoolWindows& windows, int64_t tokens);

}  // namespace longreach::selection
