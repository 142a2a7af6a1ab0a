// Held-out likelihood: per token, per byte, and by position in the document.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "data/loader.h"
#include "distributed/agreement.h"
#include "distributed/mesh.h"
#include "models/transformer.h"
#include "train/model_input.h"

namespace longreach {

struct PositionBucket {
  int64_t first = 0, last = 0;  // positions [first, last] inside a document
  int64_t tokens = 0;
  double nll = 0;  // mean, nats a token
};

struct Evaluation {
  int64_t tokens = 0;     // that carry a label; 0: nothing is measured, and the figures below say nothing
  double nll = 0;         // mean, nats a token
  double perplexity = 0;  // exp(nll)
  // Of the held-out text; over a part of the rows, by the text's mean bytes a token
  double bits_per_byte = 0;
  std::vector<PositionBucket> buckets;  // 0, 1, 2-3, 4-7, ...; empty ones are left out
};

// Called before the first batch and after each one (of every rank) with the rows read and to be read; false,
// on any rank, ends the evaluation there.
using EvaluationProgress = std::function<bool(int64_t done, int64_t rows)>;

// rows: how many rows to read, spread evenly; 0: all. batch_rows: rows a forward pass. Batches are dealt out
// to the data ranks of the mesh and shared within their context groups; all ranks get the same figures.
Evaluation evaluate(Transformer& model, const data::ValidLoader& loader, int64_t rows, int64_t batch_rows,
                    const LossOptions& options, const EvaluationProgress& progress = nullptr,
                    const Mesh& mesh = {}, const ContextPlan& context = {});

// The same of whatever gives the negative log-likelihood of each label, as Transformer::token_nll does.
using TokenNll = std::function<at::Tensor(const ModelInput&)>;
Evaluation evaluate(const TokenNll& token_nll, const data::ValidLoader& loader, int64_t rows,
                    int64_t batch_rows, const EvaluationProgress& progress = nullptr, const Mesh& mesh = {},
                    const ContextPlan& context = {});

// Throws DataError when nothing was measured.
void expect_tokens(const Evaluation& evaluation);

}  // namespace longreach
