// Packed documents as the gate sees them. Not a public header.
#pragma once
#include <vector>

#include "layers/seer/gate.h"

namespace longreach {

// One document: its rows of the map, its pooled keys, the blocks and tokens it has.
struct SeerDocument {
  int64_t row, rows, window, windows, blocks, tokens;
};

// At least one, which may be without tokens.
std::vector<SeerDocument> seer_documents(const SeerGateForm& form, const SeerPlaces& places);
int64_t seer_most_blocks(const std::vector<SeerDocument>& documents);

}  // namespace longreach
