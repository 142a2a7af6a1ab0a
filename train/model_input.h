// From a loader's rows to what the model takes.
#pragma once
#include <ATen/core/Tensor.h>

#include "data/loader.h"
#include "distributed/context_group.h"
#include "distributed/mesh.h"
#include "layers/attention/attention.h"
#include "models/transformer.h"
#include "train/run_config.h"

namespace longreach {

struct ModelInput {
  at::Tensor tokens, labels;  // int64 [B, T]
  Batch batch;
  int64_t labelled = 0;  // tokens that carry a label
  double imbalance = 1;  // of shared rows: the layout's, by the plan's cost
};

// How the ranks of a context group share a micro-batch.
struct ContextPlan {
  Group ranks;  // null: a rank has whole rows
  int64_t grain = 1;
  Balance balance = Balance::ptrr;
  Cost cost = causal_pairs;
  ContextMethod method = ContextMethod::fetch;
  std::vector<HeadGroup> heads;
};

// Of a name that `parallel.context_parallel_load_balancer` may have.
Balance balance_of(const std::string& name);

// By what the model computes for a token, at every place of its document.
ContextPlan context_plan(const RunConfig& config, const std::shared_ptr<Transformer>& model,
                         const Mesh& mesh);

// Rows that are one document each stay [rows, seq_len]; packed rows become one row [1, rows * seq_len] with
// cu_seqlens. Shared rows become one row of this rank's own tokens; `labelled` counts those of all.
ModelInput to_model_input(const data::TokenBatch& batch, const ContextPlan& plan = {});

}  // namespace longreach
