// Softmax attention whose visible keys form, for each query, one interval plus a prefix of sinks.
//
//   s_ij = scale q_i . k_j                     for j visible to i
//   lse_i = log sum_j exp(s_ij)                -inf when no key is visible
//   o_i  = sum_j exp(s_ij - lse_i) v_j         0 when no key is visible
//
// Fused forward and backward (FlashAttention-2, arXiv 2307.08691): scores exist in tiles only.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "layers/ops/common/implementation.h"
#include "layers/ops/common/softmax_operator.h"

namespace longreach {

// Which keys query i of a sequence sees. Queries are aligned with the last keys: query i stands at key
// position p = i + Tk - Tq, so that a decode step and a whole sequence mean the same.
struct IntervalMask {
  bool causal = true;  // j <= p
  int64_t window = 0;  // j > p - window: keys seen, itself included; 0: no limit
  // The first `sinks` keys of the sequence are seen whatever the window (never the future)
  int64_t sinks = 0;
  // Explicit intervals instead of causal and window: query i of head h sees lo <= j < hi, and the sinks j <
  // min(sinks, hi). int32 [Bm, Hm, Tq], Bm = 1 or B, Hm = 1, kv heads or heads; on the device of q. Positions
  // count from the start of the tensor's key axis (also when packed). An interval may be empty.
  at::Tensor lo, hi;
  // Packed documents (B = 1): int32 [N+1] on the CPU for queries and keys; both or neither. Window, sinks and
  // the alignment of queries apply within each document.
  at::Tensor cu_seqlens_q, cu_seqlens_k;
};

struct IntervalAttentionOutput {
  at::Tensor o;    // [B, Tq, H, Dv], dtype of q
  at::Tensor lse;  // [B, H, Tq], float32 (float64 for float64 inputs of the reference), natural logarithm
};

// q [B, Tq, H, Dqk], k [B, Tk, HK, Dqk], v [B, Tk, HV, Dv]; float32 or bfloat16 (CUDA: float16 too); HK and
// HV divide H; query head h reads key head h * HK / H. Dqk 1..256, Dv 1..512, any T, 0 included. Any strides
// with a dense last dimension. scale: default Dqk^-1/2. Differentiable in q, k, v through o and through lse.
// Sums in float32; bits do not depend on the number of threads. Memory: o, lse and O(T (H + HK) D) work
// space; nothing of size Tq x Tk. Throws ShapeError or DtypeError naming the argument.
IntervalAttentionOutput interval_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                           const IntervalMask& mask = {},
                                           std::optional<double> scale = std::nullopt);

// The same function from its formula, any floating dtype, the whole score matrix in memory.
IntervalAttentionOutput interval_attention_reference(const at::Tensor& q, const at::Tensor& k,
                                                     const at::Tensor& v, const IntervalMask& mask = {},
                                                     std::optional<double> scale = std::nullopt);

// By the one or the other.
IntervalAttentionOutput interval_attention_by(Implementation implementation, const at::Tensor& q,
                                              const at::Tensor& k, const at::Tensor& v,
                                              const IntervalMask& mask = {},
                                              std::optional<double> scale = std::nullopt);

// The operator without a tape, for masks without a gradient's way through lse.
std::shared_ptr<const SoftmaxOperator> interval_operator(Implementation implementation,
                                                         const IntervalMask& mask = {},
                                                         std::optional<double> scale = std::nullopt);

// The visible pairs as a bool tensor [B or 1, H, Tq, Tk]: what the reference uses, for tests and plots.
at::Tensor interval_mask_matrix(const IntervalMask& mask, int64_t batch, int64_t heads, int64_t queries,
                                int64_t keys);

}  // namespace longreach
