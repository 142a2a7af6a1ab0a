// Where the tokens that a rank owns stand in the row.
#pragma once
#include <ATen/core/Tensor.h>

#include "distributed/context_group.h"
#include "layers/basic/rope.h"

namespace longreach {

// int32 [N+1] on the CPU: bounds of the documents of the whole row.
at::Tensor whole_cu_seqlens(const ContextGroup& context);
// int32 [M+1] on the CPU: bounds of the own documents, and parts of documents, among the own tokens.
at::Tensor own_cu_seqlens(const ContextGroup& context);
// int32 [M+1] on the CPU: bounds of a fresh piece's documents, from 0; undefined for a continued piece, which
// has one.
at::Tensor cu_seqlens_of(const Piece& piece);
// int64 [n]: the own tokens, counted along the row.
at::Tensor own_tokens(const ContextGroup& context);

// The rotation of tokens of the row: positions int64 [1, N] within their documents, and where they stand in
// the row, int64 [N]. What depends on a document's length depends on all of it, whoever owns it. For x's
// dtype and place.
Rotation rotation_in(const ContextGroup& context, RotaryEmbedding& rotary, const at::Tensor& positions,
                     const at::Tensor& tokens, const at::Tensor& x);

}  // namespace longreach
