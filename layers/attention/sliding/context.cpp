// One sequence over several ranks: the keys of the window before a piece come to it, and the sinks.
#include "layers/attention/common/context/attend_pieces.h"
#include "layers/attention/common/context/head_share.h"
#include "layers/attention/common/context/planned_rows.h"
#include "layers/attention/sliding/module.h"

namespace longreach::sliding {

at::Tensor SlidingAttention::attend_context(const Heads& heads,
                                            const std::shared_ptr<const ContextGroup>& context) const {
  const HeadShare share(context, site_.num_kv_heads, *this, heads.q.scalar_type());
  return share.to_tokens(attend_in_context(share.context(), share.to_heads(heads),
                                           {.window = config_.window, .sinks = config_.sinks},
                                           site_.implementation));
}

PlannedTraffic SlidingAttention::planned_traffic(const std::shared_ptr<const ContextGroup>& context,
                                                 at::ScalarType dtype) const {
  const HeadShare share(context, site_.num_kv_heads, *this, dtype);
  PlannedTraffic plan;
  plan_heads(plan, share, site_);
  plan_keys(plan, {share.context(), history_of({.window = config_.window, .sinks = config_.sinks})},
            2 * share.own(site_.num_kv_heads).size() * site_.head_dim, dtype);
  return plan;
}

}  // namespace longreach::sliding
