// One sequence over several ranks: every earlier key of its document comes to a piece.
#include "layers/attention/common/context/attend_pieces.h"
#include "layers/attention/common/context/head_share.h"
#include "layers/attention/common/context/planned_rows.h"
#include "layers/attention/dense/module.h"

namespace longreach::dense {

at::Tensor DenseAttention::attend_context(const Heads& heads,
                                          const std::shared_ptr<const ContextGroup>& context) const {
  const HeadShare share(context, site_.num_kv_heads, *this, heads.q.scalar_type());
  return share.to_tokens(attend_in_context(share.context(), share.to_heads(heads), {}, site_.implementation));
}

PlannedTraffic DenseAttention::planned_traffic(const std::shared_ptr<const ContextGroup>& context,
                                               at::ScalarType dtype) const {
  const HeadShare share(context, site_.num_kv_heads, *this, dtype);
  PlannedTraffic plan;
  plan_heads(plan, share, site_);
  plan_keys(plan, {share.context(), history_of({})},
            2 * share.own(site_.num_kv_heads).size() * site_.head_dim, dtype);
  return plan;
}

}  // namespace longreach::dense
