// The fused branches of native sparse attention. Not a public header.
#pragma once
#include "layers/attention/nsa/documents.h"
#include "layers/ops/interval_attention/interval_attention.h"

namespace longreach::nsa {

// The choice of lucidrains' form, mean_logit.cpp: lists with the query's own block last, scores if asked for.
Selection choose_by_mean_logit(const NsaInput& in, const NsaOptions& options,
                               const std::vector<PackedDocument>& documents, bool keep_scores);

// The compressed branch, which differentiates, and the choice of blocks.
struct Chosen {
  at::Tensor o_cmp, lse_cmp;  // as in NsaOutput
  Selection selection;
};
// Of k and v the shapes alone are read.
Chosen compress_and_choose(const NsaInput& in, const NsaOptions& options,
                           const std::vector<PackedDocument>& documents, bool keep_scores);

// int32 [1, 1, Tq]: bounds of what each query sees among keys of which a document has `extra` before its
// windows.
struct Bounds {
  at::Tensor lo, hi;
};
Bounds window_bounds(const NsaOptions& options, const std::vector<PackedDocument>& documents, int64_t queries,
                     int64_t extra);

// Attention over listed blocks of a size that block_attention has no tiles for: one interval of keys a list
// entry, merged.
IntervalAttentionOutput attend_small_blocks(Implementation implementation, const NsaInput& in,
                                            const at::Tensor& indices, const NsaOptions& options,
                                            const std::vector<PackedDocument>& documents);

// Whether block_attention has tiles for blocks of this size.
bool has_block_tiles(int64_t block_size);

}  // namespace longreach::nsa
