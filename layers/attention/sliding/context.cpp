// One sequence over several ranks: the keys of the window before a piece come to it, and the sinks.
#include "layers/attention/common/context/attend_pieces.h"
#include "layers/attention/sliding/module.h"

namespace longreach::sliding {

at::Tensor SlidingAttention::attend_context(const Heads& heads,
                                            const std::shared_ptr<const ContextGroup>& context) const {
  return attend_in_context(context, heads, {.window = config_.window, .sinks = config_.sinks},
                           site_.implementation);
}

}  // namespace longreach::sliding
