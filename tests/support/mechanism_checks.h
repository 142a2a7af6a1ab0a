// What every attention mechanism must satisfy, whatever it computes. A mechanism's tests call these with its
// configs.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>

#include "layers/attention/mechanisms.h"

namespace longreach::test {

// Small and awkward: 4 heads over 2 key heads of 8 features, width 24, layer 1 of 3, weights large enough to
// matter.
LayerSite small_site();
LayerSite norm_site();  // with QK-norm

// Outputs at t do not depend on tokens after t.
void expect_causal(const AttentionConfig& config, const LayerSite& site);
// Token by token, at once, and in pieces of odd sizes: what forward gives. Rows of a batch stay apart.
void expect_decode_equals_forward(const AttentionConfig& config, const LayerSite& site, int64_t tokens = 45);
// Documents packed into one row give what each gives alone, outputs and gradients; one is empty. A row
// without tokens gives nothing.
void expect_packed_equals_separate(const AttentionConfig& config, const LayerSite& site);
// The fused path in float32 against the plain formula in float64: y, the gradient of x and of every
// parameter; and the reference's own gradients against central differences.
void expect_fused_equals_reference(const AttentionConfig& config, const LayerSite& site, int64_t tokens = 45);
// bfloat16 inputs with float32 parameters: near the float64 reference.
void expect_bfloat16_close(const AttentionConfig& config, const LayerSite& site);
// Bytes of the decode state after `tokens` tokens fed one by one.
int64_t decode_bytes(const AttentionConfig& config, const LayerSite& site, int64_t tokens);
// The message of what decoding beyond max_tokens throws; empty when nothing is thrown.
std::string overflow_message(const AttentionConfig& config, const LayerSite& site);

}  // namespace longreach::test
