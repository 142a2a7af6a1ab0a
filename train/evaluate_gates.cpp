#include "train/evaluate_gates.h"

#include <algorithm>

#include "core/error.h"
#include "train/model_input.h"

namespace longreach {
namespace {

std::vector<GatedLayer*> layers_with_gates(Transformer& model) {
  auto layers = gated_layers(model);
  check<ConfigError>(!layers.empty(), "the model has no layer of ", kinds_with_gates());
  return layers;
}

}  // namespace

std::vector<GateResult> evaluate_gates(Transformer& model, const data::ValidLoader& loader,
                                       const std::vector<double>& densities, int64_t rows, int64_t batch_rows,
                                       const LossOptions& options, const EvaluationProgress& progress) {
  const auto layers = layers_with_gates(model);
  model.eval();
  std::vector<GateResult> trials;
  const auto attempt = [&](const std::string& name, GatePolicy policy, double density) {
    for (GatedLayer* layer : layers) {
      layer->set_trial(GateTrial{.policy = policy, .density = density});
      layer->take_count();
    }
    const Evaluation evaluation = evaluate(model, loader, rows, batch_rows, options, progress);
    expect_tokens(evaluation);
    GateCount total;
    for (GatedLayer* layer : layers) {
      const GateCount count = layer->take_count();
      total.chosen += count.chosen;
      total.causal += count.causal;
      layer->set_trial(std::nullopt);
    }
    trials.push_back(
        {name, density,
         static_cast<double>(total.chosen) / static_cast<double>(std::max<int64_t>(total.causal, 1)),
         evaluation.nll, evaluation.perplexity});
  };
  attempt("dense", GatePolicy::window, 1.0);  // every causal block
  for (const double density : densities) {
    attempt("oracle", GatePolicy::oracle, density);
    attempt("gate", GatePolicy::gate, density);
    attempt("window", GatePolicy::window, density);
    attempt("random", GatePolicy::random, density);
  }
  return trials;
}

GateMaps gate_maps(Transformer& model, const data::ValidLoader& loader, int64_t layer) {
  model.eval();
  std::vector<std::string> known;
  for (GatedLayer* candidate : layers_with_gates(model)) {
    known.push_back(std::to_string(candidate->layer()));
    if (candidate->layer() != layer) continue;
    GateMaps maps;
    candidate->record_maps(&maps);
    const ModelInput input = to_model_input(loader.batch(0, 1));
    model.token_nll(input.tokens, input.labels, input.batch);
    candidate->record_maps(nullptr);
    return maps;
  }
  throw UserError(text("layer ", layer, " has no gate; layers with one: ", join(known)));
}

}  // namespace longreach
