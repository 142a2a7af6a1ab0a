// One sequence over several ranks: every earlier key of its document comes to a piece.
#include "layers/attention/common/context/attend_pieces.h"
#include "layers/attention/common/context/head_share.h"
#include "layers/attention/common/context/planned_rows.h"
#include "layers/attention/dense/module.h"

namespace longreach::dense {

at::Tensor DenseAttention::attend_context(const Heads& heads,
                                          const std::shared_ptr<const ContextGroup>& context) const {
  const HeadShare share(context, site_.num_kv_heads);
  return share.to_tokens(attend_in_context(share.context(), share.to_heads(heads), {}, site_.implementation));
}

PlannedTraffic DenseAttention::planned_traffic(const std::shared_ptr<const ContextGroup>& context,
                                               at::ScalarType dtype) const {
  PlannedTraffic plan;
  plan_keys(plan, {context, history_of({})}, 2 * site_.num_kv_heads * site_.head_dim, dtype);
  return plan;
}

}  // namespace longreach::dense
