// How far a model's next-token distributions are from a teacher's, without the logits of all tokens.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace longreach {

struct DivergenceOptions {
  double temperature = 1.0;
  int64_t chunk_tokens = 1024;  // rows of logits, of either model, that exist at once
};

// Sum over tokens of temperature^2 KL(softmax(z_teacher / temperature) || softmax(z / temperature)) (Hinton
// et al., arXiv 1503.02531), z = hidden weight^T; float32 (float64 for float64), differentiable in hidden [N,
// C] and weight [V, C]. teacher_hidden [N, Ct] and teacher_weight [V, Ct] are constants, their width is their
// own. Throws ShapeError.
at::Tensor chunked_divergence(const at::Tensor& hidden, const at::Tensor& weight,
                              const at::Tensor& teacher_hidden, const at::Tensor& teacher_weight,
                              const DivergenceOptions& options = {});

}  // namespace longreach
