// What a model learns from another one, its teacher, on a batch: attention layer by layer, the residual
// stream, and next-token distributions. Nothing of size tokens x tokens or tokens x vocabulary is made whole.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "models/transformer.h"

namespace longreach {

// Factors of the losses below; 0: not asked for.
struct DistillationWeights {
  // Of each layer alone: mean over features of (student's attention - teacher's)^2, both before they join the
  // stream and both of the stream that enters the TEACHER's layer, so that layers learn beside each other
  // (attention transfer of LoLCATs, arXiv 2410.10254; stage 1 of HALO, arXiv 2601.22156).
  double attention = 0;
  // Of each layer: |student's stream behind it - teacher's|^2 / |teacher's|^2, token by token: some tokens'
  // streams are a hundred times longer than others'.
  double hidden = 0;
  // Of each token with a label: temperature^2 KL(teacher || student) of the next token's distribution.
  double logits = 0;
  double temperature = 1;
};

// Sums over tokens, and over layers (differentiable scalars, float32); undefined where the weight is 0.
struct DistillationLosses {
  at::Tensor attention, hidden, logits;
};

// tokens, labels int64 [B, T]; batch and options as for Transformer::loss. teacher: in evaluation mode, of as
// many layers and as wide for `attention` and `hidden`, of the same vocabulary for `logits` (expect_teacher).
// It leaves no gradient.
DistillationLosses distillation_losses(Transformer& student, Transformer& teacher, const at::Tensor& tokens,
                                       const at::Tensor& labels, const Batch& batch,
                                       const LossOptions& options, const DistillationWeights& weights);

// Throws ConfigError naming the first size by which the teacher cannot teach what the weights ask for.
void expect_teacher(const ModelConfig& student, const ModelConfig& teacher,
                    const DistillationWeights& weights);

// What the mixture of both models gives, layer i of the student where its_own[i], else of the teacher, with
// the teacher's embedding and output: negative log-likelihood of each label as Transformer::token_nll has it.
// No gradient.
at::Tensor mixed_token_nll(Transformer& student, Transformer& teacher, const std::vector<bool>& its_own,
                           const at::Tensor& tokens, const at::Tensor& labels, const Batch& batch,
                           const LossOptions& options);

}  // namespace longreach
