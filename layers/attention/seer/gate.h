// The gate of SeerAttention as functions: what it makes of queries and keys before the rotary embedding, its
// scores, the truth it learns from, its loss, and the lists of blocks it chooses. The module is in seer.cpp.
//
// Letters: Hg heads of the map (prefill form: H; decode form: HK), N rows (prefill: blocks of queries;
// decode: queries; packed documents follow each other), M pooled keys, gh = gate_hidden.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "layers/attention/seer/seer.h"
#include "layers/basic/rope.h"
#include "layers/ops/block_attention/block_attention.h"
#include "layers/ops/common/implementation.h"
#include "layers/ops/selection/selection.h"

namespace longreach {

// What a gate computes, free of names: see seer_gate_form.
struct SeerGateForm {
  bool decode = true;         // SeerAttention-R: rows are queries, one map a key head
  std::vector<Pool> q_pools;  // prefill form
  std::vector<Pool> k_pools;
  bool project_group = false;  // Qproj: weights of every head of a group, summed
  bool average_group = false;  // Qavgproj, Qavg: the group's mean first; Qorig: after norm and rotation
  bool average_last = false;
  bool linear_q = true;
  bool norm = false;  // RMSNorm, eps 1e-6
  bool rope = true;
  bool end_position = false;
  int64_t block_size = 64, hidden = 128;
  int64_t heads = 0, kv_heads = 0, head_dim = 0;

  bool single() const { return !decode && !linear_q; }  // weights on repeated pooled keys alone
  int64_t map_heads() const { return decode ? kv_heads : heads; }
  int64_t query_block() const { return decode ? 1 : block_size; }
  // Shapes of the weights; empty: there is none.
  std::vector<int64_t> q_shape() const, k_shape() const;
};

// Throws ConfigError naming the key that does not fit.
SeerGateForm seer_gate_form(const SeerConfig& config, const LayerSite& site);

struct SeerGateWeights {
  at::Tensor q, k;            // [H or HK, ..., gh]: gate form's q_shape, k_shape; q may be undefined
  at::Tensor q_norm, k_norm;  // [gh]; undefined without norm
};

// Where tokens stand: rows of a batch, packed documents (B = 1), or a piece of a document (decoding, or the
// others' tokens are on other ranks; the prefill form begins it at a block).
struct SeerPlaces {
  int64_t tokens = 0;     // keys of a row of the batch
  int64_t offset = 0;     // position of the first query (decoding)
  at::Tensor cu_seqlens;  // as in Batch
  int64_t length = 0;     // of the longest document, for rotary embeddings that depend on it
  int64_t whole = 0;      // of the one document whose first `tokens` these are; 0: they are all

  BlockGeometry geometry(const SeerGateForm& form) const;
};
SeerPlaces seer_places(int64_t tokens, const at::Tensor& cu_seqlens);
inline SeerPlaces seer_places(const at::Tensor& q, const at::Tensor& cu_seqlens) {
  return seer_places(q.size(1), cu_seqlens);
}

// The block that each row's own queries end in, counted within its document: int64 [N].
at::Tensor seer_own_blocks(const SeerGateForm& form, const SeerPlaces& places);

// q [B, T, H, D] before the rotary embedding -> [B, N, Hg, gh], normalised and rotated. positions int64 [B,
// T] (decode form); rotary: of gh features, null when the gate has none. Differentiable.
at::Tensor seer_gate_queries(const SeerGateForm& form, const SeerGateWeights& weights, const at::Tensor& q,
                             RotaryEmbedding* rotary, const at::Tensor& positions, const SeerPlaces& places,
                             Implementation implementation);
// k [B, T, HK, D] before the rotary embedding, from block `first_block` on -> [B, M, Hg or HK, gh]. The
// prefill form pools a last partial block over the tokens it has; the decode form leaves it out, since no row
// scores it.
at::Tensor seer_gate_keys(const SeerGateForm& form, const SeerGateWeights& weights, const at::Tensor& k,
                          RotaryEmbedding* rotary, const SeerPlaces& places, Implementation implementation,
                          int64_t first_block = 0);

// Scores of all rows: float32 (float64) [B, Hg, N, blocks of the longest document]. What a row does not score
// holds the lowest float32 (prefill form: blocks after its own) or -1e20 (decode form: its own block and
// later), as in the authors' code. Differentiable; for analysis and the reference, since it keeps the whole
// map.
at::Tensor seer_gate_logits(const SeerGateForm& form, const at::Tensor& gate_q, const at::Tensor& gate_k,
                            const SeerPlaces& places);

// Every causal block of every row: int32 [1, Hg, N, blocks].
at::Tensor seer_all_blocks(const SeerGateForm& form, const SeerPlaces& places);

// Block attention of rotated heads over `indices` with the largest probability of each (row, listed block),
// per head of the map. The gradient of o flows; the statistics have none.
struct SeerAttended {
  at::Tensor o;          // [B, T, H, D]
  at::Tensor block_max;  // [B, Hg, N, S]
};
SeerAttended seer_attend(const SeerGateForm& form, const at::Tensor& q, const at::Tensor& k,
                         const at::Tensor& v, const at::Tensor& indices, const SeerPlaces& places,
                         bool statistics, Implementation implementation);

// What the gate should say of the listed blocks: block_max over its sum along the row; the decode form leaves
// a row's own block out and adds 1e-9 to the sum. [B, Hg, N, S]; 0 where nothing is listed.
at::Tensor seer_gate_target(const SeerGateForm& form, const at::Tensor& block_max, const at::Tensor& indices,
                            const SeerPlaces& places);

// KL(target || softmax of the gate's scores over the row's listed blocks): its mean over a document's heads
// and rows, summed over documents; rows before a quarter of the blocks (prefill) or before slice_ratio of the
// tokens (decode) are dropped. Over SeerLossCount it is the authors' loss. Scores exist for some rows at a
// time; gradients to gate_q and gate_k come from the same pass.
at::Tensor seer_gate_loss(const SeerGateForm& form, const at::Tensor& gate_q, const at::Tensor& gate_k,
                          const at::Tensor& target, const at::Tensor& indices, const SeerPlaces& places,
                          double slice_ratio);

// seer_gate_loss of every causal block of rotated heads, without anything of size rows x blocks: the truth is
// computed for some rows at a time, and for those that count alone.
at::Tensor seer_distillation_loss(const SeerGateForm& form, const at::Tensor& q, const at::Tensor& k,
                                  const at::Tensor& v, const at::Tensor& gate_q, const at::Tensor& gate_k,
                                  const SeerPlaces& places, double slice_ratio,
                                  Implementation implementation);

// By what the gate losses of a step are divided. The authors take the mean over every element of the map
// [heads, rows, blocks of the longest document], then over documents: of all batches of the step here.
struct SeerLossCount {
  int64_t documents = 0, most_blocks = 0;

  void add(const SeerGateForm& form, const SeerPlaces& places, int64_t batch);
  double divisor() const;  // at least 1
};

// How blocks are chosen from scores; one of top_k, threshold, density.
struct SeerRule {
  int64_t top_k = 0;  // decode form: besides the own block
  std::optional<double> threshold;
  double density = 0;
  int64_t first_blocks = 0;
  bool force_diagonal = true;     // prefill form
  bool last_block_dense = false;  // prefill form
};
SeerRule seer_rule(const SeerConfig& config);

// int32 [B, Hg, N, S]: BlockLists::indices of query_block rows.
at::Tensor seer_choose(const SeerGateForm& form, const SeerRule& rule, const at::Tensor& gate_q,
                       const at::Tensor& gate_k, const SeerPlaces& places, Implementation implementation);
// The same from given scores [B, Hg, N, blocks] (entries of blocks a row does not score are not read).
at::Tensor seer_choose_from(const SeerGateForm& form, const SeerRule& rule, const at::Tensor& scores,
                            const SeerPlaces& places);

// bool [B, Hg, N, blocks] of a list.
at::Tensor seer_block_map(const at::Tensor& indices, int64_t blocks);

// From the formula, the whole probability matrix in memory: the truth of every causal block.
// q, k rotated; -> [B, Hg, N, blocks]. per_query_head: before the maximum over a group (decode form).
at::Tensor seer_block_max_reference(const SeerGateForm& form, const at::Tensor& q, const at::Tensor& k,
                                    const SeerPlaces& places, bool per_query_head = false);
at::Tensor seer_gate_loss_reference(const SeerGateForm& form, const at::Tensor& logits,
                                    const at::Tensor& target, const SeerPlaces& places, double slice_ratio);

// By block attention's statistics and seer_gate_loss, or by the formulae: the truth and the loss of every
// causal block.
at::Tensor seer_block_max_by(Implementation implementation, const SeerGateForm& form, const at::Tensor& q,
                             const at::Tensor& k, const SeerPlaces& places, bool per_query_head = false);
at::Tensor seer_gate_loss_by(Implementation implementation, const SeerGateForm& form,
                             const at::Tensor& gate_q, const at::Tensor& gate_k, const at::Tensor& target,
                             const SeerPlaces& places, double slice_ratio);

// The weight of each row in the loss [N]: 0 for dropped rows, else 1 over its document's rows and heads that
// count.
at::Tensor seer_row_weights(const SeerGateForm& form, const SeerPlaces& places, double slice_ratio);

}  // namespace longreach
