// From keys and queries to lists of key blocks: pooling of tokens into blocks, scores of blocks, and the
// choice of blocks a query reads. Lists go to block_attention.
//
// Fused: a query's scores of all blocks exist for one query (block) at a time; no map of queries x blocks x
// heads is kept. The choice has no gradient; pooling has. Deterministic: ties go to the lowest block.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "layers/ops/common/implementation.h"
#include "layers/ops/document.h"

namespace longreach {

enum class Pool { mean, max, min };

// Windows over the tokens of each document: window i covers tokens [i stride, i stride + width).
struct PoolWindows {
  int64_t width = 64, stride = 64;
  // A document of L tokens has ceil(L / stride) windows, the last ones cut at its end (stride = width only),
  // or, when not partial, the windows that fit whole: L < width ? 0 : (L - width) / stride + 1.
  bool partial = true;
  at::Tensor cu_seqlens;  // int32 [N+1] on the CPU, B = 1; undefined: a row is a document
};

int64_t window_count(const PoolWindows& windows, int64_t tokens);
// Sets which of the pooled keys are each document's, from its keys. cu_seqlens is not read.
void place_windows(std::vector<PackedDocument>& documents, const PoolWindows& windows);
// int32 [N+1] on the CPU: where each document's windows begin. Undefined when cu_seqlens is.
at::Tensor window_cu_seqlens(const PoolWindows& windows);

// x [B, T, H, D] -> [B, M, H, |pools| D]: the pools of each window side by side in the order given. A mean
// divides by the tokens really there. The gradient of a tied maximum or minimum goes to the first of the
// tokens. float32, bfloat16, on CUDA float16 too (sums in float32).
at::Tensor pool_blocks(const at::Tensor& x, const std::vector<Pool>& pools, const PoolWindows& windows);
at::Tensor pool_blocks_reference(const at::Tensor& x, const std::vector<Pool>& pools,
                                 const PoolWindows& windows);
// By the one or the other.
at::Tensor pool_blocks_by(Implementation implementation, const at::Tensor& x, const std::vector<Pool>& pools,
                          const PoolWindows& windows);

// Where rows and blocks stand. Rows r of a document speak for queries [offset + r query_block, ... +
// query_block) of it, blocks j for its keys [j key_block, (j + 1) key_block); both are cut at the document's
// end.
struct BlockGeometry {
  int64_t query_block = 1, key_block = 64;
  int64_t tokens = 0;  // keys of a row of the batch; not read when packed
  int64_t offset = 0;  // position of the first query (decoding); 0 when packed
  // int32 [N+1] on the CPU, B = 1: documents in tokens; undefined: a row is a document.
  at::Tensor cu_seqlens;
  // Tokens of the one document whose first `tokens` keys are here: what density counts. 0: they are all.
  int64_t whole = 0;
};

// Which blocks of a row are kept. When causal a row's candidates are the blocks that begin no later than its
// last query, else all. Forced candidates are kept first and count towards top_k.
struct SelectionRule {
  int64_t top_k = 0;   // at most so many; 0: no limit
  double density = 0;  // SeerAttention's nz_ratio r: top_k = max(1, floor((1 - sqrt(1 - r)) blocks)); 0: off
  std::optional<double> threshold;  // keep scores above it (and the forced)
  std::optional<double> mass;       // keep the fewest best candidates that reach this share of the row's sum
  int64_t first = 0;                // forced: the first blocks of the document
  int64_t latest = 1;               // forced: the newest candidate and those before it; 1: the diagonal
  bool causal = true;
};

// How queries and pooled keys turn into scores of blocks.
struct BlockScores {
  // Which windows of keys a row scores. `started`: begin no later than the row's last query (SeerAttention).
  // `complete`: end no later than the row's first query (NSA). `past`: lie in blocks before that of the row's
  // first query (SeerAttention-R: a query never scores its own block). The others count as absent:
  // probability 0, logit -inf.
  enum class Visible { started, complete, past, all } visible = Visible::started;
  // A window's score: its share in the softmax over the row's visible windows, or the logit
  bool softmax = true;
  enum class Vote { mean, sum, max } vote = Vote::sum;  // over the heads that share a list
  std::optional<double> scale;                          // of logits; default D^-1/2
  // Of the windows of k, within each document. A block's score is the sum over windows of overlap / stride
  // times their scores (NSA, arXiv 2502.11089, equation 9: 1, 2, 2, 2, 1 for windows of 32, stride 16, blocks
  // of 64); windows equal to blocks stand for themselves. With logits windows must equal blocks.
  int64_t width = 64, stride = 64;
  bool partial = true;
};

struct Selection {
  at::Tensor indices;  // int32 [B, Hl, N, S], ascending, -1 at the end: BlockLists::indices
  // float32 [B, Hl, N, blocks of the longest document]; -inf where no candidate; if asked for.
  at::Tensor scores;
};

// q [B, N, H, D] (queries, or pooled blocks of them), k [B, M, HK, D] (pooled keys); one list for each of Hl
// = `lists` equal groups of heads, HK and Hl divide H. S is top_k (or what density gives for the longest
// document) where there is one, else the longest row's count. Float32, bfloat16, on CUDA float16 too (float64
// for the reference). No gradient. Throws ShapeError, DtypeError, or ConfigError for rules that contradict
// each other (forced blocks beyond top_k, density with top_k). On CUDA the head dimension is at most 128 and
// a row's scores must fit a block's shared memory (6656 blocks and more with up to 64 heads a list:
// ShapeError), and the host waits for a word that says whether scores are numbers and, where S does not
// follow from the rule, how long the longest row is.
Selection select_blocks(const at::Tensor& q, const at::Tensor& k, int64_t lists, const BlockScores& how,
                        const BlockGeometry& geometry, const SelectionRule& rule, bool keep_scores = false);
Selection select_blocks_reference(const at::Tensor& q, const at::Tensor& k, int64_t lists,
                                  const BlockScores& how, const BlockGeometry& geometry,
                                  const SelectionRule& rule, bool keep_scores = false);
// By the one or the other.
Selection select_blocks_by(Implementation implementation, const at::Tensor& q, const at::Tensor& k,
                           int64_t lists, const BlockScores& how, const BlockGeometry& geometry,
                           const SelectionRule& rule, bool keep_scores = false);

// The choice alone, from scores [B, Hl, N, blocks of the longest document] that are there already; NaN is an
// error, entries of no candidates are not read. int32 [B, Hl, N, S] as above. float32, bfloat16, float16, at
// most 25344 blocks a row on CUDA; float64, for references, is chosen from on the CPU.
at::Tensor choose_blocks(const at::Tensor& scores, const BlockGeometry& geometry, const SelectionRule& rule);

}  // namespace longreach
