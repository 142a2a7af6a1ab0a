// What `train --dry-run` says of rows that ranks share.
#pragma once
#include <memory>
#include <ostream>

#include "data/tokenizers/tokenizer.h"
#include "distributed/mesh.h"
#include "train/run_config.h"

namespace longreach {

// How evenly ranks share the rows that the run begins with, and what they send of them. Opens the corpus, and
// leaves nothing behind.
void print_shared_rows(const RunConfig& config, const ParallelDegrees& degrees,
                       const std::shared_ptr<const data::Tokenizer>& tokenizer, std::ostream& out);

}  // namespace longreach
