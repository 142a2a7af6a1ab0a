// The closed list of what `verify` can run: a mechanism's name in a file's metadata -> a function that runs
// its cases.
#pragma once
#include <functional>
#include <map>
#include <string>

#include "train/verify/case.h"

namespace longreach::verify {

// Reads the inputs of a case, runs the operator or module, produces the outputs. Throws UnknownCase for a
// config it does not know.
using Runner = std::function<void(Case&)>;

const std::map<std::string, Runner>& runners();

void run_lightning(Case& run);     // operator (given slopes, or the paper's decays), and the layer forms
void run_retention(Case& run);     // arXiv 2307.08621
void run_simple_gla(Case& run);    // one scalar decay a token and head
void run_sink_window(Case& run);   // arXiv 2309.17453
void run_lse_merge(Case& run);     // block-sparse attention cut into key partitions
void run_longlora(Case& run);      // arXiv 2309.12307, forms without a roll
void run_s2_attention(Case& run);  // arXiv 2407.17678
void run_biformer_bra(Case& run);  // arXiv 2303.08810: the layer over images, and regions of a sequence
void run_nsa(Case& run);           // arXiv 2502.11089: three public codes
void run_seer(Case& run);          // arXiv 2410.13276 (prefill gate), arXiv 2506.08889 (decode gate)
void run_topk_token(Case& run);    // exact top-k tokens of each query, or of a kv group by soft votes

// Layer forms of lightning (run_lightning hands over).
void run_minimax_layer(Case& run);
void run_srmsnorm(Case& run);
void run_transnormer_model(Case& run);

}  // namespace longreach::verify
