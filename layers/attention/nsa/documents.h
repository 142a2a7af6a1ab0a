// Where the documents of a row begin among queries, keys and windows, and which windows a query sees. Not a
// public header.
#pragma once
#include <vector>

#include "layers/attention/nsa/nsa.h"
#include "layers/ops/document.h"

namespace longreach::nsa {

// What the functions of block_counts.h get; undefined: NsaOptions::num_blocks.
struct CountedInput : NsaInput {
  at::Tensor block_counts;
};

// Throws ShapeError naming the argument.
void check_input(const CountedInput& in, const NsaOptions& options);

// At least one, which may be without tokens. A row is a query.
std::vector<PackedDocument> documents(const NsaInput& in, const NsaOptions& options);

// block_counts as the lists stand: int64 [B, Hl, Tq, 1].
at::Tensor counts_by_list(const CountedInput& in);
// num_blocks: the largest of the counts, at most all blocks, at least the forced ones.
NsaOptions with_largest_count(NsaOptions options, const CountedInput& in);

// How many of a document's windows the query at `position` sees.
int64_t visible_windows(const NsaOptions& options, int64_t position, int64_t windows);

// gate [B, T, H or 1, 3] weights the three branches of `out` into out.o.
void add_branches(const at::Tensor& gate, NsaOutput& out);

}  // namespace longreach::nsa
