// Rows that stand for stretches of packed documents (windows, blocks) and turn as the tokens at which they
// stand.
#pragma once
#include <ATen/core/Tensor.h>

#include "layers/basic/rope.h"

namespace longreach {

// The token, counted along the packed row, at which each row stands, int64 [rows]: positions int64 [1, rows]
// within its document; cu_seqlens and cu_rows: the documents' bounds in tokens and in rows, int32 [N+1].
at::Tensor tokens_of_rows(const at::Tensor& cu_seqlens, const at::Tensor& cu_rows,
                          const at::Tensor& positions);

// Positions of tokens within their documents: int64 [1, T].
at::Tensor document_positions(const at::Tensor& cu_seqlens);

// Of some of the tokens.
Rotation at_tokens(const Rotation& rotation, const at::Tensor& tokens);

}  // namespace longreach
