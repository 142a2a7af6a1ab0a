// Lightning attention over ranks that share a sequence: projections, positions, norms and gates are a token's
// own; between ranks pass the states of heads, or heads of all tokens.
#include "layers/attention/common/context/head_share.h"
#include "layers/attention/common/context/places.h"
#include "layers/attention/common/context/recurrence.h"
#include "layers/attention/lightning/module.h"

namespace longreach::lightning {

AttentionOutput LightningAttention::forward_pieces(const at::Tensor& x, const Batch& batch) const {
  const bool fused = options_.implementation == Implementation::fused;
  const HeadShare share(batch.context, site_.num_heads, *this, x.scalar_type());
  const at::Tensor log_decay =
      share.own(options_.log_decay.to(x.device(), fused ? at::kFloat : at::kDouble), 0);
  const auto run = [&](const at::Tensor& q, const at::Tensor& k,
                       const at::Tensor& v) -> LightningAttentionOutput {
    const Heads heads = share.to_heads(Heads{q, k, v});
    return {share.to_tokens(recurrence_in_pieces(
                share.context(), {.q = heads.q, .k = heads.k, .v = heads.v, .log_decay = log_decay},
                options_.implementation, {.scale = options_.scale, .chunk = options_.chunk},
                LightningConfig::kind)),
            {}};
  };
  Places places{batch.positions, {}};
  if (options_.rotary)
    places.rotation =
        rotation_in(*batch.context, *options_.rotary, batch.positions, own_tokens(*batch.context), x);
  return {layer_around(run, x, places, weights(), options_).y, {}};
}

PlannedTraffic LightningAttention::planned_traffic(const std::shared_ptr<const ContextGroup>& context,
                                                   at::ScalarType dtype) const {
  const HeadShare share(context, site_.num_heads, *this, dtype);
  const int64_t dk = (lrpe_ ? 2 : 1) * site_.head_dim, dv = site_.head_dim;
  PlannedTraffic plan = planned_recurrence(share.context(), share.own(site_.num_heads).size(), dk, dv, dtype,
                                           LightningConfig::kind);
  share.plan_to_heads(plan, 2 * dk + dv);
  share.plan_to_tokens(plan, dv);
  return plan;
}

}  // namespace longreach::lightning
