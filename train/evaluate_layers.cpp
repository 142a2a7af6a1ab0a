#include "train/evaluate_layers.h"

#include <algorithm>

#include "core/error.h"
#include "models/distillation.h"
#include "train/config_changes.h"

namespace longreach {

const PositionBucket& LayerResult::far() const {
  const auto& buckets = evaluation.buckets;
  return *std::find_if(buckets.rbegin(), buckets.rend(),
                       [&](const PositionBucket& bucket) { return 20 * bucket.tokens >= evaluation.tokens; });
}

std::vector<LayerResult> evaluate_layers(Transformer& student, Transformer& teacher,
                                         const data::ValidLoader& loader, int64_t rows, int64_t batch_rows,
                                         const LossOptions& options, const EvaluationProgress& progress) {
  expect_teacher(student.config(), teacher.config(), {.attention = 1, .logits = 1});
  const std::vector<bool> converted = changed_layers(teacher.config(), student.config());
  check<ConfigError>(std::find(converted.begin(), converted.end(), true) != converted.end(),
                     "--teacher: every layer attends as the teacher's does; there is nothing to compare");
  const auto kinds = attention_per_layer(student.config().attention, student.config().num_hidden_layers);
  std::vector<LayerResult> results;
  const auto attempt = [&](int64_t layer, std::string kind, const std::vector<bool>& its_own) {
    const TokenNll token_nll = [&](const ModelInput& input) {
      return mixed_token_nll(student, teacher, its_own, input.tokens, input.labels, input.batch, options);
    };
    results.push_back({layer, std::move(kind), evaluate(token_nll, loader, rows, batch_rows, progress)});
    expect_tokens(results.back().evaluation);
  };
  std::vector<bool> its_own(converted.size(), false);
  attempt(-1, "teacher", its_own);
  for (size_t i = 0; i < converted.size(); ++i) {
    if (!converted[i]) continue;
    its_own[i] = true;
    attempt(static_cast<int64_t>(i), std::string(kind_of(kinds[i])), its_own);
    its_own[i] = false;
  }
  return results;
}

std::vector<int64_t> layers_that_stay(const std::vector<LayerResult>& results) {
  std::vector<LayerResult> layers(results.begin() + 1, results.end());
  std::stable_sort(layers.begin(), layers.end(), [](const LayerResult& one, const LayerResult& other) {
    return one.evaluation.nll > other.evaluation.nll;
  });
  std::vector<int64_t> order;
  for (const LayerResult& layer : layers) order.push_back(layer.layer);
  return order;
}

}  // namespace longreach
