// Cross-entropy over a large vocabulary without the logits of all tokens.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace longreach {

inline constexpr int64_t kIgnoredLabel = -100;

struct CrossEntropyOptions {
  double z_loss = 0.0;          // weight of lse^2 (PaLM, arXiv 2204.02311)
  int64_t chunk_tokens = 1024;  // rows of logits that exist at once
};

struct CrossEntropyOutput {
  at::Tensor loss_sum;  // scalar: sum over labelled tokens of nll + z_loss lse^2; differentiable
  at::Tensor nll;       // [N]: lse - logit of the label, 0 where the label is -100; detached
  int64_t tokens = 0;   // labelled tokens
};

// hidden [N, C] (float32, bfloat16, float64); weight [V, C], used in the dtype of hidden, its gradient summed
// over chunks in its own dtype; labels int64 [N], -100 (ignored) or 0..V-1. Logits [chunk, V] are made, used
// for the loss and for both gradients in the same pass, and dropped; softmax statistics are float32 (float64
// for float64). loss_sum and nll are float32 (float64). Throws ShapeError, DtypeError, or DataError for a
// label outside the vocabulary.
CrossEntropyOutput chunked_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                         const at::Tensor& labels, const CrossEntropyOptions& options = {});

// The same from the formula, all logits in memory, differentiated by the tape.
CrossEntropyOutput cross_entropy_reference(const at::Tensor& hidden, const at::Tensor& weight,
                                           const at::Tensor& labels, const CrossEntropyOptions& options = {});

}  // namespace longreach
