// Causal region routing as a layer: projections, rotary embedding, routing, block attention.
#include "layers/attention/biformer/biformer.h"

#include <algorithm>

#include "core/error.h"

#include "layers/attention/biformer/module.h"
#include "layers/ops/common/packed_documents.h"

namespace longreach {

void BiformerConfig::fields(FieldVisitor& visit) {
  visit.field("region", region, {.help = "tokens a region: 16, 32, 64 or 128", .allowed = between(16, 128)});
  if (region != 16 && region != 32 && region != 64 && region != 128)
    visit.reject("region", text(region, ", expected 16, 32, 64 or 128"));
  visit.field(
      "topk", topk,
      {.help = "regions of keys that a region of queries reads, its own included", .allowed = at_least(1)});
  visit.field("rope", rope, {.help = "rotary embedding on q and k, before routing"});
}

namespace biformer {

AttentionOutput BiformerAttention::forward(const at::Tensor& x, const Batch& batch) {
  const Heads heads = project(x, batch);
  if (batch.context) return {merge(attend_context(heads, batch.context)), {}};
  const BiformerOutput out =
      biformer_attention(heads.q, heads.k, heads.v, routing_, batch.cu_seqlens, {}, site_.implementation);
  return {merge(out.o), {}};
}

double BiformerAttention::flops_per_token(int64_t seq_len) const {
  const int64_t tokens = std::max<int64_t>(seq_len, 1), size = routing_.region;
  double pairs = 0, scores = 0;
  for (int64_t row = 0; row < ceil_div(tokens, size); ++row) {
    const int64_t queries = std::min(size, tokens - row * size);
    pairs += static_cast<double>(queries * std::min(row, routing_.topk - 1) * size) +
             static_cast<double>(queries * (queries + 1)) / 2.0;
    scores += static_cast<double>(row);
  }
  // A score of a region costs half of a pair: it has no value to add.
  return flops((pairs + scores / 2.0) / static_cast<double>(tokens));
}

}  // namespace biformer

std::shared_ptr<Attention> make_attention(const BiformerConfig& config, const LayerSite& site) {
  return std::make_shared<biformer::BiformerAttention>(config, site);
}

}  // namespace longreach
