// Packed documents as the gate sees them. Not a public header.
#pragma once
#include <functional>
#include <vector>

#include "layers/attention/seer/gate.h"
#include "layers/ops/document.h"

namespace longreach {

// Rows of the map, tokens and pooled keys. At least one document, which may be without tokens.
std::vector<PackedDocument> seer_documents(const SeerGateForm& form, const SeerPlaces& places);

// Rows of the map before those of the places, and of the whole document.
int64_t seer_first_row(const SeerGateForm& form, const SeerPlaces& places);
int64_t seer_whole_rows(const SeerGateForm& form, const SeerPlaces& places, const PackedDocument& document);

// Some rows of one document, so many that what exists of them at once does not grow with the square of its
// length.
struct SeerChunk {
  PackedDocument document;
  int64_t row, rows;
};
std::vector<SeerChunk> seer_chunks(const SeerGateForm& form, const SeerPlaces& places);

// What the rows of a chunk should say of the blocks they list: int32 [B or 1, Hg or 1, rows, S], -1: none;
// target [B, Hg, rows, S], 0 there.
struct SeerTruth {
  at::Tensor listed, target;
};
// seer_gate_loss where the truth of a chunk is made when it is needed; it is not asked for rows that are
// dropped.
at::Tensor seer_gate_loss_by_chunks(const SeerGateForm& form, const at::Tensor& gate_q,
                                    const at::Tensor& gate_k, const SeerPlaces& places, double slice_ratio,
                                    const std::function<SeerTruth(const SeerChunk&)>& truth_of);

// The target of blocks that are all scored.
at::Tensor seer_scored_target(const SeerGateForm& form, const at::Tensor& block_max,
                              const at::Tensor& listed);

}  // namespace longreach
