// The operators on a CUDA device, through the same cases and the same limits as on the CPU. Without a device
// every test is skipped and says why.
#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "layers/ops/cudnn_attention/cudnn_attention.h"
#include "tests/layers/ops/interval_attention/cases.h"
#include "tests/layers/ops/recurrence/cases.h"
#include "tests/support/device_fixture.h"

namespace longreach::test {
namespace {

IntervalAttentionOutput attention_on_device(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                            const IntervalMask& mask, std::optional<double> scale) {
  IntervalMask there = mask;
  there.lo = on_device(mask.lo), there.hi = on_device(mask.hi);
  const auto [o, lse] = interval_attention(on_device(q), on_device(k), on_device(v), there, scale);
  return {o.to(at::kCPU), lse.to(at::kCPU)};
}

RecurrenceOutput recurrence_on_device(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const at::Tensor& log_decay, const at::Tensor& initial_state,
                                      const at::Tensor& cu_seqlens, const RecurrenceOptions& options) {
  const auto [o, state] = recurrence(on_device(q), on_device(k), on_device(v), on_device(log_decay),
                                     on_device(initial_state), cu_seqlens, options);
  return {o.to(at::kCPU), state.to(at::kCPU)};
}

void expect_attention(const AttentionCase& c) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    expect_matches_reference(c, dtype, attention_on_device);
}

void expect_recurrence(const RecurrenceCase& c) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    expect_matches_reference(c, dtype, recurrence_on_device);
}

TEST_F(Device, IntervalAttentionOfAllLengths) {
  for (const int64_t length : {1, 63, 64, 65, 200, 257})
    for (const bool causal : {true, false}) {
      AttentionCase c{.queries = length, .keys = length, .qk_size = 64, .v_size = 64};
      c.mask.causal = causal;
      expect_attention(c);
    }
}

TEST_F(Device, IntervalAttentionOfAllHeadSizes) {
  for (const auto& [qk, v] : std::vector<std::pair<int64_t, int64_t>>{
           {16, 16}, {32, 32}, {64, 64}, {96, 96}, {128, 128}, {192, 128}, {192, 192}, {256, 256}})
    expect_attention({.queries = 130, .keys = 130, .qk_size = qk, .v_size = v});
}

TEST_F(Device, IntervalAttentionMasks) {
  AttentionCase c{.queries = 300, .keys = 300, .key_heads = 2, .value_heads = 1, .qk_size = 64, .v_size = 64};
  c.mask.window = 70, c.mask.sinks = 5;
  expect_attention(c);
  AttentionCase packed{.batch = 1, .queries = 200, .keys = 200, .qk_size = 64, .v_size = 64};
  packed.mask.cu_seqlens_q = packed.mask.cu_seqlens_k = at::tensor({0, 0, 70, 70, 199, 200}, at::kInt);
  expect_attention(packed);
  expect_attention(
      {.queries = 1, .keys = 3000, .key_heads = 2, .value_heads = 2, .qk_size = 128, .v_size = 128});
}

IntervalAttentionOutput cudnn_on_device(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                        const IntervalMask& mask, std::optional<double> scale) {
  const auto [o, lse] = cudnn_attention(on_device(q), on_device(k), on_device(v), mask.causal, scale);
  return {o.to(at::kCPU), lse.to(at::kCPU)};
}

TEST_F(Device, CudnnAttentionThroughLibTorch) {
  for (const int64_t length : {2, 64, 65, 200})
    for (const int64_t key_heads : {4, 2}) {
      AttentionCase c{.queries = length, .keys = length, .key_heads = key_heads, .value_heads = key_heads};
      c.qk_size = c.v_size = 64;
      c.gradient_of_lse = false;
      expect_matches_reference(c, at::kBFloat16, cudnn_on_device);
    }
  AttentionCase one{.queries = 1, .keys = 300, .qk_size = 128, .v_size = 128, .gradient_of_lse = false};
  expect_matches_reference(one, at::kBFloat16, cudnn_on_device);
}

TEST_F(Device, RecurrenceOfAllLengths) {
  for (const int64_t length : {1, 63, 64, 65, 200, 257})
    for (const auto decay : {DecayKind::kNone, DecayKind::kHead, DecayKind::kToken})
      expect_recurrence({.tokens = length, .dk = 64, .dv = 64, .decay = decay});
}

TEST_F(Device, RecurrenceOfAllHeadSizes) {
  for (const auto& [dk, dv] :
       std::vector<std::pair<int64_t, int64_t>>{{16, 16}, {32, 96}, {128, 128}, {256, 512}})
    expect_recurrence({.tokens = 130, .heads = 4, .key_heads = 4, .value_heads = 4, .dk = dk, .dv = dv});
}

TEST_F(Device, RecurrenceOfPackedDocumentsWithSharedHeads) {
  expect_recurrence({.tokens = 200,
                     .heads = 4,
                     .key_heads = 2,
                     .value_heads = 1,
                     .dk = 64,
                     .dv = 64,
                     .decay = DecayKind::kToken,
                     .bounds = {0, 0, 70, 70, 199, 200}});
}

}  // namespace
}  // namespace longreach::test
