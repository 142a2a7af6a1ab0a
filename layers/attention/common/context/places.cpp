#include "layers/attention/common/context/places.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include "layers/basic/rope_documents.h"

namespace longreach {

at::Tensor whole_cu_seqlens(const ContextGroup& context) {
  return at::tensor(context.layout().cu_seqlens(), at::kInt);
}

at::Tensor own_cu_seqlens(const ContextGroup& context) {
  std::vector<int32_t> bounds{0};
  for (const Piece& piece : context.pieces()) {
    const auto local = static_cast<int32_t>(piece.local);
    if (piece.continued()) bounds.push_back(local + static_cast<int32_t>(piece.tokens));
    for (size_t i = 1; i < piece.cu_seqlens.size(); ++i) bounds.push_back(local + piece.cu_seqlens[i]);
  }
  return at::tensor(bounds, at::kInt);
}

at::Tensor cu_seqlens_of(const Piece& piece) {
  return piece.continued() ? at::Tensor() : at::tensor(piece.cu_seqlens, at::kInt);
}

at::Tensor own_tokens(const ContextGroup& context) {
  std::vector<at::Tensor> parts{at::arange(0, at::kLong)};
  for (const Interval& own : context.layout().owned(context.rank()))
    parts.push_back(at::arange(own.begin, own.end, at::kLong));
  return at::cat(parts);
}

Rotation rotation_in(const ContextGroup& context, RotaryEmbedding& rotary, const at::Tensor& positions,
                     const at::Tensor& tokens, const at::Tensor& x) {
  if (!rotary.depends_on_length()) return rotary.at(positions, x.scalar_type(), 0, x.device());
  const at::Tensor whole = document_positions(whole_cu_seqlens(context));
  return at_tokens(rotary.at(whole, x.scalar_type(), 0, x.device()), tokens);
}

}  // namespace longreach
