// A number of selected blocks for each token, flash-linear-attention's `block_counts` as a tensor.
#pragma once
#include "layers/attention/nsa/nsa.h"

namespace longreach {

// As the functions of nsa.h with num_blocks replaced by block_counts, int32 or int64 [B, Tq, HK], or [B, Tq,
// H] where each head has a list of its own: each query of each list reads that many of its best blocks,
// forced ones first (lucidrains: its own block on top); 0 reads none, more than there are reads all. The
// scores of all blocks are kept until the choice is made. Throws ShapeError and DtypeError naming the
// argument.
NsaOutput nsa_attention(const NsaInput& in, const at::Tensor& block_counts, const NsaOptions& options,
                        bool keep_scores = false);
NsaOutput nsa_attention_reference(const NsaInput& in, const at::Tensor& block_counts,
                                  const NsaOptions& options, bool keep_scores = false);
// By the one or the other. Undefined block_counts: num_blocks.
NsaOutput nsa_attention_by(Implementation implementation, const NsaInput& in, const at::Tensor& block_counts,
                           const NsaOptions& options, bool keep_scores = false);
NsaOutput nsa_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& gate,
                        const at::Tensor& block_counts, const NsaOptions& options,
                        const at::Tensor& cu_seqlens = {});

}  // namespace longreach
