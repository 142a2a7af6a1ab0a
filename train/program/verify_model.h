// `verify --checkpoint`: a whole model against what another program got from the same weights.
#pragma once
#include <iosfwd>
#include <string>
#include <vector>

#include "train/verify/verify.h"

namespace longreach {

// Files whose mechanism is causal_lm, or that hold in.input_ids ([B, T] or [T]) with any of: out.logits
// [B, T, V]; out.greedy_ids [B, N], the likeliest continuations; out.nll, of each next token; out.logsumexp;
// out.topk_ids and out.topk_logits; out.full_logits at positions out.full_logits_pos. checkpoint: as
// load_saved_model. Prints one line a tensor and a last line; returns the exit code, as
// verify::verify_files.
int verify_model(const std::string& checkpoint, const std::vector<std::string>& files,
                 const verify::Options& options, std::ostream& out, std::ostream& errors);

}  // namespace longreach
