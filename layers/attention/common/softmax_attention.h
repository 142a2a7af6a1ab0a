// What the softmax mechanisms share: q, k, v, o projections under Hugging Face's names, optional QK-norm,
// rotary embedding, grouped heads, a gate of the outputs.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

#include "layers/attention/attention.h"
#include "layers/basic/layer_site.h"
#include "layers/basic/linear.h"
#include "layers/basic/norm.h"
#include "layers/basic/rope.h"
#include "layers/ops/interval_attention/interval_attention.h"

namespace longreach {

struct Heads {
  at::Tensor q, k, v;  // [B, T, H, D], [B, T, HK, D], [B, T, HK, D]
};

class SoftmaxAttention : public Attention {
 public:
  // rope: rotate q and k. output_gate: o_gate, for `finish`. Throws ConfigError when the sizes of the site do
  // not fit each other.
  SoftmaxAttention(const LayerSite& site, bool rope, bool output_gate = false);

 protected:
  // length: tokens of the whole sequence when it is known beforehand (decoding), else 0.
  Heads project(const at::Tensor& x, const at::Tensor& positions, int64_t length = 0) const;
  Heads project(const at::Tensor& x, const Batch& batch) const;
  // The halves of `project`: projections with QK-norm, and the rotation of a tensor in x's dtype and place.
  Heads split_heads(const at::Tensor& x) const;
  Rotation rotation_at(const at::Tensor& positions, const at::Tensor& x, int64_t length = 0) const;
  // Of the tokens of a batch. What depends on a document's length depends on all of it, whoever owns it.
  Rotation rotation_of(const Batch& batch, const at::Tensor& x) const;
  // The same of any tokens of the row that ranks share: positions int64 [1, N] within their documents, and
  // where they stand in the row, int64 [N].
  Rotation rotation_in(const ContextGroup& context, const at::Tensor& positions, const at::Tensor& tokens,
                       const at::Tensor& x) const;
  // q and k turned to their positions, where the mechanism has a rotary embedding.
  Heads rotated(const Heads& heads, const at::Tensor& positions, int64_t length = 0) const;
  Heads rotated(const Heads& heads, const Batch& batch) const;
  at::Tensor merge(const at::Tensor& o) const;  // [B, T, H, D] -> [B, T, C]
  // The same of o times sigmoid of x's projection, where the mechanism has the gate (arXiv 2505.06708).
  at::Tensor finish(const at::Tensor& x, const at::Tensor& o) const;
  // Decoding: positions [B, n] of the tokens x [B, n, C] that follow `seen` ones. Throws ConfigError when the
  // rotary embedding cannot turn them beside the keys that are there.
  at::Tensor next_positions(const at::Tensor& x, int64_t seen) const;
  // Floating-point operations a token, when a query sees `keys` keys on average.
  double flops(double keys) const;

  const LayerSite site_;

 private:
  bool rope_;
  std::shared_ptr<RotaryEmbedding> rotary_;
  std::shared_ptr<Linear> q_proj_, k_proj_, v_proj_, o_proj_;
  std::shared_ptr<Linear> output_gate_;  // null: none
  std::shared_ptr<Norm> q_norm_, k_norm_;
};

// interval_attention by the fused kernel or by its reference.
at::Tensor attend(const Heads& heads, const IntervalMask& mask, Implementation implementation);

// f over each document of packed heads (B = 1), outputs joined; over all of it when cu_seqlens is undefined.
at::Tensor each_document(const Heads& heads, const at::Tensor& cu_seqlens,
                         const std::function<at::Tensor(const Heads&)>& f);

// softmax(scale q k^T + mask) v from the formula; visible: bool [T, T], query by key.
at::Tensor masked_softmax_attention(const Heads& heads, const at::Tensor& visible);

}  // namespace longreach
