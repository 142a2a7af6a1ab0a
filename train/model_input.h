// From a loader's rows to what the model takes.
#pragma once
#include <ATen/core/Tensor.h>

#include "data/loader.h"
#include "layers/attention/attention.h"

namespace longreach {

struct ModelInput {
  at::Tensor tokens, labels;  // int64 [B, T]
  Batch batch;
  int64_t labelled = 0;  // tokens that carry a label
};

// Rows that are one document each stay [rows, seq_len]; packed rows become one row [1, rows * seq_len] with
// cu_seqlens.
ModelInput to_model_input(const data::TokenBatch& batch);

}  // namespace longreach
