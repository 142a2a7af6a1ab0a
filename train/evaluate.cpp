#include "train/evaluate.h"

#include <bit>
#include <cmath>
#include <numbers>

#include "core/error.h"

namespace longreach {
namespace {

// Sums by bucket k = number of bits of the position: 0 | 1 | 2-3 | 4-7 | ...
struct Sums {
  std::vector<double> nll = std::vector<double>(64, 0.0);
  std::vector<int64_t> tokens = std::vector<int64_t>(64, 0);

  void add(const ModelInput& input, const at::Tensor& token_nll) {
    const at::Tensor values = token_nll.to(at::kCPU, at::kDouble).contiguous(),
                     labels = input.labels.contiguous(), positions = input.batch.positions.contiguous();
    const double* nlls = values.const_data_ptr<double>();
    const int64_t* label = labels.const_data_ptr<int64_t>();
    const int64_t* position = positions.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < labels.numel(); ++i) {
      if (label[i] == data::kIgnoreLabel) continue;
      const auto bucket = static_cast<size_t>(std::bit_width(static_cast<uint64_t>(position[i])));
      nll[bucket] += nlls[i];
      ++tokens[bucket];
    }
  }
};

Evaluation summarize(const Sums& sums, int64_t all_tokens, int64_t all_bytes) {
  Evaluation result;
  double total = 0;
  for (size_t k = 0; k < sums.tokens.size(); ++k) {
    if (sums.tokens[k] == 0) continue;
    const int64_t first = k == 0 ? 0 : int64_t{1} << (k - 1);
    result.buckets.push_back({first, k == 0 ? 0 : 2 * first - 1, sums.tokens[k],
                              sums.nll[k] / static_cast<double>(sums.tokens[k])});
    total += sums.nll[k];
    result.tokens += sums.tokens[k];
  }
  if (result.tokens == 0) return result;
  result.nll = total / static_cast<double>(result.tokens);
  result.perplexity = std::exp(result.nll);
  const double bytes_per_token =
      static_cast<double>(all_bytes) / static_cast<double>(std::max<int64_t>(all_tokens, 1));
  result.bits_per_byte = result.nll / std::numbers::ln2 / bytes_per_token;
  return result;
}

}  // namespace

Evaluation evaluate(Transformer& model, const data::ValidLoader& loader, int64_t rows, int64_t batch_rows,
                    const LossOptions& options, const EvaluationProgress& progress, const Mesh& mesh,
                    const ContextPlan& context) {
  const TokenNll token_nll = [&](const ModelInput& input) {
    return model.token_nll(input.tokens, input.labels, input.batch, options);
  };
  return evaluate(token_nll, loader, rows, batch_rows, progress, mesh, context);
}

Evaluation evaluate(const TokenNll& token_nll, const data::ValidLoader& loader, int64_t rows,
                    int64_t batch_rows, const EvaluationProgress& progress, const Mesh& mesh,
                    const ContextPlan& context) {
  const int64_t available = loader.num_rows();
  const int64_t wanted = rows == 0 ? available : std::min(rows, available);
  // All rows: neighbours in one batch. A part: single rows at even distances.
  const int64_t count = wanted == available ? batch_rows : 1;
  const auto goes_on = [&](int64_t done) {
    return largest_over(mesh.world, progress && !progress(done, wanted) ? 1 : 0, "evaluation") == 0;
  };
  Sums sums;
  for (int64_t done = 0; goes_on(done) && done < wanted;
       done = std::min(done + count * size_of(mesh.data), wanted)) {
    const int64_t mine = done + count * rank_in(mesh.data);
    if (mine >= wanted) continue;
    const int64_t first = wanted == available ? mine : mine * available / wanted;
    const ModelInput input = to_model_input(loader.batch(first, std::min(count, wanted - mine)), context);
    sums.add(input, token_nll(input));
  }
  sums.nll = sum_over(mesh.world, std::move(sums.nll), "evaluation");
  sums.tokens = sum_over(mesh.world, std::move(sums.tokens), "evaluation");
  return summarize(sums, loader.num_labels(), loader.num_bytes());
}

void expect_tokens(const Evaluation& evaluation) {
  check<DataError>(
      evaluation.tokens > 0,
      "held-out text: no token of the rows that are read carries a label, there is nothing to measure");
}

}  // namespace longreach
