#include "train/probe_logits.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace longreach {

at::Tensor probe_logits(Transformer& model) {
  const at::NoGradGuard no_grad;
  const ModelConfig& config = model.config();
  // Where `dynamic` begins: other programs have no other number of positions for it.
  const bool dynamic = config.rope.rope_type == "dynamic" && config.rope.original_max_position_embeddings > 0;
  const int64_t positions =
      dynamic ? config.rope.original_max_position_embeddings : config.max_position_embeddings;
  const int64_t tokens = std::min<int64_t>(64, positions);
  // A prime as the step: neighbours differ, and all of a small vocabulary occurs.
  const at::Tensor ids = (at::arange(tokens, at::kLong) * 7919 + 11).remainder(config.vocab_size);
  return model.logits(ids.unsqueeze(0), whole_rows(1, tokens)).to(at::kFloat);
}

double relative_difference(const at::Tensor& before, const at::Tensor& after) {
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  if (before.sizes() != after.sizes() || !before.isfinite().all().item<bool>()) return kInfinite;
  const double largest = before.abs().max().item<double>(),
               most = (before - after).abs().max().item<double>();
  if (most == 0) return 0;
  return most <= std::numeric_limits<double>::max() && largest > 0 ? most / largest : kInfinite;
}

double expect_same_logits(const at::Tensor& before, const at::Tensor& after, double limit,
                          const std::string& what) {
  const double difference = relative_difference(before, after);
  check<Error>(difference <= limit, one_line(what), ": logits of 64 tokens differ by ", difference,
               " of the largest, more than ", limit, "; nothing was kept");
  return difference;
}

}  // namespace longreach
