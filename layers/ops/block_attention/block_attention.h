// Softmax attention over lists of key blocks: each block of queries names the blocks of keys that it reads.
//
//   s_ij = scale q_i . k_j                     for j in a listed block, j <= p_i when causal
//   lse_i = log sum_j exp(s_ij)                -inf when no key is visible
//   o_i  = sum_j exp(s_ij - lse_i) v_j         0 when no key is visible
//   P_ij = exp(s_ij - lse_i)
//
// Fused forward and backward (FlashAttention-2's block-sparse form, arXiv 2307.08691; gather of selected
// blocks by a whole group of heads: Native Sparse Attention, arXiv 2502.11089): scores exist in tiles only.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "layers/ops/common/implementation.h"
#include "layers/ops/common/softmax_operator.h"

namespace longreach {

// Which key blocks each query block reads. Blocks count from the first query and from the first key of the
// sequence, or of the document when packed; a document's last block may be short. Query i of a sequence
// stands at key position p_i = i + Tk - Tq.
struct BlockLists {
  // int32 [Bl, Hl, N, S]: S entries for each of N query blocks; -1 is no block, anywhere in a row; no block
  // twice in a row; any order. Bl = 1 or B. Hl divides H: query head h reads list h * Hl / H, so that Hl = 1
  // is one list for all, kv heads one a group, H one a head. Packed: the rows of a document follow those of
  // the document before, N = sum of ceil(length / query_block). On the device of q.
  at::Tensor indices;
  int64_t query_block = 64;               // queries a row of the lists speaks for, 1..4096
  int64_t key_block = 64;                 // 16, 32, 64 or 128
  bool causal = true;                     // inside listed blocks too; blocks wholly in the future see nothing
  at::Tensor cu_seqlens_q, cu_seqlens_k;  // packed documents, as in IntervalMask
};

// What to report of P beside the output: one number a (query block, listed block).
enum class BlockStatistics { none, per_head, per_list };

struct BlockAttentionOutput {
  at::Tensor o;    // [B, Tq, H, Dv], dtype of q
  at::Tensor lse;  // [B, H, Tq], float32 (float64 for float64 inputs of the reference), natural logarithm
  // Largest entry and sum of P over the pairs of a query block and a listed key block; 0 for -1 entries and
  // where nothing is visible. float32 [B, H or Hl, N, S]; per_list takes the largest and the sum over the
  // heads that share the list as well. No gradient. Undefined unless asked for.
  at::Tensor block_max, block_sum;
};

struct BlockAttentionOptions {
  std::optional<double> scale;  // default Dqk^-1/2
  BlockStatistics statistics = BlockStatistics::none;
};

// q [B, Tq, H, Dqk], k [B, Tk, HK, Dqk], v [B, Tk, HV, Dv]; dtypes, strides, sizes and gradients as
// interval_attention; HK and HV divide H. Bits do not depend on the number of threads. Memory: o, lse, the
// lists and their transpose, O(T (H + HK) D) work space; nothing of size Tq x Tk. Throws ShapeError or
// DtypeError naming the argument.
BlockAttentionOutput block_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     const BlockLists& lists, const BlockAttentionOptions& options = {});

// The same function from its formula, any floating dtype, the whole score matrix in memory.
BlockAttentionOutput block_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                               const BlockLists& lists,
                                               const BlockAttentionOptions& options = {});

// By the one or the other.
BlockAttentionOutput block_attention_by(Implementation implementation, const at::Tensor& q,
                                        const at::Tensor& k, const at::Tensor& v, const BlockLists& lists,
                                        const BlockAttentionOptions& options = {});

// The operator without a tape.
std::shared_ptr<const SoftmaxOperator> block_operator(Implementation implementation, const BlockLists& lists,
                                                      const BlockAttentionOptions& options = {});

// Rows of the lists: sum over the documents of ceil(length / query_block).
int64_t query_block_count(const BlockLists& lists, int64_t queries);

// The visible pairs as a bool tensor [Bl, H, Tq, Tk]: what the reference uses, for tests and plots.
at::Tensor block_mask_matrix(const BlockLists& lists, int64_t batch, int64_t heads, int64_t queries,
                             int64_t keys);

}  // namespace longreach
