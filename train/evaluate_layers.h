// What each converted layer costs by itself: perplexity of held-out text when it alone takes the place of the
// teacher's, from which follows which layers had better stay (HALO, arXiv 2601.22156, with text in the place
// of its benchmarks).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "train/evaluate.h"

namespace longreach {

struct LayerResult {
  int64_t layer = -1;  // -1: the teacher alone; else in its place the student's layer
  std::string kind;    // of its attention
  Evaluation evaluation;

  // The farthest positions that a twentieth of the tokens have: all results share them.
  const PositionBucket& far() const;
};

// The teacher, then each layer of `student` whose attention is another. Throws ConfigError when the two do
// not have the same form (expect_teacher), or the same attention everywhere; DataError when nothing was
// measured.
std::vector<LayerResult> evaluate_layers(Transformer& student, Transformer& teacher,
                                         const data::ValidLoader& loader, int64_t rows, int64_t batch_rows,
                                         const LossOptions& options, const EvaluationProgress& progress);

// The layers in the order in which they had better stay the teacher's: by what they add to the mean, most
// first.
std::vector<int64_t> layers_that_stay(const std::vector<LayerResult>& results);

}  // namespace longreach
