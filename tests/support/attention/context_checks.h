// Context parallelism of a mechanism: P ranks that share a row against one rank that has all of it.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "distributed/communicator.h"
#include "distributed/sequence_layout.h"
#include "layers/attention/mechanisms.h"

namespace longreach::test {

// A row of documents, and how it is dealt out.
struct ContextCase {
  std::vector<int32_t> cu_seqlens;
  int ranks = 2;
  Balance balance = Balance::none;
  int neighbours = 1;  // that share out heads; 1: keys are fetched; 0: what plans the fewest bytes
};

// One document, rows of a batch, packed documents of odd lengths, documents of one token, an empty one, fewer
// tokens than ranks have tiles; on 1 to 4 ranks, contiguous, from both ends, by cost.
std::vector<ContextCase> all_context_cases();
// Rows of one's own, each on 1 to 4 ranks and in every balance.
std::vector<ContextCase> context_cases_of(const std::vector<std::vector<int32_t>>& rows);
// One of each kind, for options that are the same code but for a branch.
std::vector<ContextCase> some_context_cases();

// Heads shared out: among all of two ranks, and among two of four.
std::vector<ContextCase> head_context_cases();

struct ContextTolerance {
  bool same_bits = true;  // of outputs in float32 and bfloat16: softmax kinds
  // Parameters whose names begin so are zero. The sigmoid of a gate is one bit off in the last elements of a
  // tensor, where LibTorch has no vector left; that of zero is not.
  std::string neutral;
  double output = 2e-6, gradient = 2e-6;  // float32, relative
  double bfloat16 = 1.2;                  // the error against float64, in that of one rank
  // The largest error in the largest entry, instead of root mean squares; where one rank is further from
  // float64 than that, by twice as much: gradients whose terms cancel.
  bool by_entry = false;
};

// Outputs, losses, gradients of x and of every parameter, for all cases: float64 by the reference within
// 1e-12, float32 and bfloat16 by the fused path. Each pass without a tape gives the same as with one. Ranks
// compare their exchanges (comm.check).
void expect_context_equals_one_rank(const AttentionConfig& config, const LayerSite& site,
                                    const std::vector<ContextCase>& cases = some_context_cases(),
                                    const ContextTolerance& tolerance = {});

// bfloat16 alone, and each case by itself: rows that are long enough for that.
void expect_context_rounds_as_one_rank(const AttentionConfig& config, const LayerSite& site,
                                       const std::vector<ContextCase>& cases,
                                       const ContextTolerance& tolerance = {});

// Under recomputation, float32, every rank gives the same bits: its backward pass runs the forward exchanges
// again.
void expect_context_recomputes(const AttentionConfig& config, const LayerSite& site);

// What each rank has sent in one pass forward and one backward.
struct ContextTraffic {
  Traffic forward, backward;
};
std::vector<ContextTraffic> context_traffic(const AttentionConfig& config, const LayerSite& site,
                                            const ContextCase& a_case, at::ScalarType dtype = at::kFloat);
// Bytes of a label; 0 when there are none.
int64_t bytes_of(const Traffic& traffic, const std::string& label);

// That the layer's TrafficPlanner says what every rank sends in both passes of some_context_cases, float32
// and bfloat16, to the byte; where data choose blocks, the keys of tokens at most. all_chosen: they are not
// fewer.
void expect_planned_traffic(const AttentionConfig& config, const LayerSite& site, bool all_chosen = false);

// Float32 with ranks that talk over Gloo, two and three of them: the bits of threads, and one rank's numbers.
void expect_context_over_gloo(const AttentionConfig& config, const LayerSite& site,
                              const ContextTolerance& tolerance = {});

}  // namespace longreach::test
