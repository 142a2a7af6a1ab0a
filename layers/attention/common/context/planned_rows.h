// What exchanges of rows would send: parts of TrafficPlanner::planned_traffic.
#pragma once
#include <string>

#include "layers/attention/common/context/attend_pieces.h"
#include "layers/attention/common/context/head_share.h"
#include "layers/attention/common/context/stretch_rows.h"
#include "layers/attention/planned_traffic.h"

namespace longreach {

// Heads of q, k and v to where they are attended, and of o back.
void plan_heads(PlannedTraffic& plan, const HeadShare& share, const LayerSite& site);

// Keys and values of attend_pieces, `numbers` of both a token in `dtype`: forward, once more for the backward
// pass, and their gradients.
void plan_keys(PlannedTraffic& plan, const PieceKeys& keys, int64_t numbers, at::ScalarType dtype);

// Rows of `numbers` that are fetched: of the own tokens, or of stretches of them. Gradients, where there are
// any, go the other way (row_exchange.h).
void plan_fetched(PlannedTraffic& plan, const std::string& label, const PieceKeys& tokens, int64_t numbers,
                  at::ScalarType dtype, bool gradients);
void plan_fetched(PlannedTraffic& plan, const std::string& label, const StretchRows& rows, int64_t numbers,
                  at::ScalarType dtype, bool gradients);

// share_chosen_blocks, and the keys of all blocks that may be chosen.
void plan_chosen_blocks(PlannedTraffic& plan, const std::shared_ptr<const ContextGroup>& context,
                        int64_t block_size, int64_t numbers, at::ScalarType dtype);

}  // namespace longreach
