#include "layers/basic/rope_documents.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/diff.h>
#include <ATen/ops/repeat_interleave.h>

namespace longreach {
namespace {

// The first token of each row's document.
at::Tensor first_tokens(const at::Tensor& cu_seqlens, const at::Tensor& cu_rows) {
  const at::Tensor first = cu_seqlens.to(at::kLong).narrow(0, 0, cu_seqlens.numel() - 1);
  return at::repeat_interleave(first, cu_rows.to(at::kLong).diff());
}

}  // namespace

at::Tensor tokens_of_rows(const at::Tensor& cu_seqlens, const at::Tensor& cu_rows,
                          const at::Tensor& positions) {
  return first_tokens(cu_seqlens, cu_rows) + positions.flatten();
}

at::Tensor document_positions(const at::Tensor& cu_seqlens) {
  const at::Tensor first = first_tokens(cu_seqlens, cu_seqlens);
  return (at::arange(first.numel(), at::kLong) - first).unsqueeze(0);
}

Rotation at_tokens(const Rotation& rotation, const at::Tensor& tokens) {
  const at::Tensor index = tokens.to(rotation.cos.device());
  return {rotation.cos.index_select(1, index), rotation.sin.index_select(1, index)};
}

}  // namespace longreach
