// Lightning attention over ranks that share a sequence: projections, positions, norms and gates are a token's
// own; between ranks pass the states of heads.
#include "layers/attention/common/context/recurrence.h"
#include "layers/attention/lightning/module.h"

namespace longreach::lightning {

AttentionOutput LightningAttention::forward_pieces(const at::Tensor& x, const Batch& batch) const {
  const bool fused = options_.implementation == Implementation::fused;
  const at::Tensor log_decay = options_.log_decay.to(x.device(), fused ? at::kFloat : at::kDouble);
  const auto run = [&](const at::Tensor& q, const at::Tensor& k,
                       const at::Tensor& v) -> LightningAttentionOutput {
    return {recurrence_in_pieces(batch.context, {.q = q, .k = k, .v = v, .log_decay = log_decay},
                                 options_.implementation, {.scale = options_.scale, .chunk = options_.chunk},
                                 LightningConfig::kind),
            {}};
  };
  return {layer_around(run, x, batch.positions, weights(), options_).y, {}};
}

}  // namespace longreach::lightning
