// What a model says of 64 tokens: the measure by which it is the same before and after it was written.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>

#include "models/transformer.h"

namespace longreach {

// [1, 64, V] float32 (fewer tokens where the model takes fewer), of ids that are spread over the vocabulary,
// the same for every model of its size.
at::Tensor probe_logits(Transformer& model);

// Of two models that compute in float32 with weights that are equal bit by bit: their logits can differ by
// the order of sums alone, a relative 2^-24 for each addition, and errors of either sign add up to about
// 2^-24 sqrt(n), 1.9e-5 for the 1e5 additions in a row of a large model.
inline constexpr double kOrderOfSums = 2e-5;

// The largest difference over the largest magnitude of `before`; infinite where one of them is not finite or
// shapes differ.
double relative_difference(const at::Tensor& before, const at::Tensor& after);

// Throws Error that begins with `what` when it is more than `limit`; returns it.
double expect_same_logits(const at::Tensor& before, const at::Tensor& after, double limit,
                          const std::string& what);

}  // namespace longreach
