// Launch plans of the sm_90a kernels of dense attention: which problems they take, and their launches.
#pragma once
#include <vector>

#include "layers/ops/cuda/launch.h"
#include "layers/ops/interval_attention/cuda/params.h"
#include "layers/ops/interval_attention/kernels.h"

namespace longreach::interval {

// Do these kernels compute the forward pass of this problem? bf16 or fp16, head dims 64/64 or 128/128, one
// document a batch entry, no window, sinks or explicit intervals, a scale above 1e-30, at least one query and
// key, and rows that TMA reaches: 16-byte aligned, strides positive and below 2^40 bytes.
bool takes_dense_forward(const Params& params);

cuda::Launch dense_forward_launch(const Params& params);

// The same for the backward pass, whose gradients TMA must reach too; key and value heads are equally many.
bool takes_dense_backward(const Params& params, const Gradients& gradients);

// After row_terms has written `terms` [batches, heads, queries].
std::vector<cuda::Launch> dense_backward_launches(const Params& params, const Gradients& gradients,
                                                  const CudaTerms* terms);

}  // namespace longreach::interval
