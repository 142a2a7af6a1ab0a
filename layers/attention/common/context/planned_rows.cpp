#include "layers/attention/common/context/planned_rows.h"

#include "layers/ops/document.h"

namespace longreach {
namespace {

int64_t size_of(at::ScalarType dtype) { return static_cast<int64_t>(c10::elementSize(dtype)); }

// own: rows of this rank, all of which it wants itself.
void plan_fetched(PlannedTraffic& plan, const std::string& label, const RowExchange& rows, int64_t own,
                  int64_t numbers, at::ScalarType dtype, bool gradients) {
  plan.forward[label] += rows.sent() * numbers * size_of(dtype);
  if (gradients)
    plan.backward[label + " gradients"] += (rows.wanted() - own) * numbers * size_of(sums_of(dtype));
}

}  // namespace

void plan_heads(PlannedTraffic& plan, const HeadShare& share, const LayerSite& site) {
  const int64_t queries = site.num_heads / site.num_kv_heads * site.head_dim;
  share.plan_to_heads(plan, queries + 2 * site.head_dim);
  share.plan_to_tokens(plan, queries);
}

void plan_fetched(PlannedTraffic& plan, const std::string& label, const PieceKeys& tokens, int64_t numbers,
                  at::ScalarType dtype, bool gradients) {
  plan_fetched(plan, label, *tokens.exchange(), tokens.context().tokens(), numbers, dtype, gradients);
}

void plan_fetched(PlannedTraffic& plan, const std::string& label, const StretchRows& rows, int64_t numbers,
                  at::ScalarType dtype, bool gradients) {
  plan_fetched(plan, label, *rows.exchange(), rows.own(), numbers, dtype, gradients);
}

void plan_keys(PlannedTraffic& plan, const PieceKeys& keys, int64_t numbers, at::ScalarType dtype) {
  plan_fetched(plan, "keys", keys, numbers, dtype, true);
  plan.backward["keys"] += keys.exchange()->sent() * numbers * size_of(dtype);
}

void plan_chosen_blocks(PlannedTraffic& plan, const std::shared_ptr<const ContextGroup>& context,
                        int64_t block_size, int64_t numbers, at::ScalarType dtype) {
  const int64_t blocks = context->layout().blocks(block_size).total();
  plan.forward["chosen blocks"] += ceil_div(blocks, 8) * (context->layout().ranks() - 1);
  plan_keys(plan, {context, history_of({})}, numbers, dtype);
}

}  // namespace longreach
