// One sequence over several ranks: the keys of the window before a piece come to it, and the sinks.
#include "layers/attention/common/context/attend_pieces.h"
#include "layers/attention/common/context/head_share.h"
#include "layers/attention/common/context/planned_rows.h"
#include "layers/attention/sliding/module.h"

namespace longreach::sliding {

at::Tensor SlidingAttention::attend_context(const Heads& heads,
                                            const std::shared_ptr<const ContextGroup>& context) const {
  const HeadShare share(context, site_.num_kv_heads);
  return share.to_tokens(attend_in_context(share.context(), share.to_heads(heads),
                                           {.window = config_.window, .sinks = config_.sinks},
                                           site_.implementation));
}

PlannedTraffic SlidingAttention::planned_traffic(const std::shared_ptr<const ContextGroup>& context,
                                                 at::ScalarType dtype) const {
  PlannedTraffic plan;
  plan_keys(plan, {context, history_of({.window = config_.window, .sinks = config_.sinks})},
            2 * site_.num_kv_heads * site_.head_dim, dtype);
  return plan;
}

}  // namespace longreach::sliding
