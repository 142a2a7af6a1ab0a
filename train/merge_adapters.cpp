#include "train/merge_adapters.h"

#include <ATen/core/grad_mode.h>

#include "models/adapter.h"

namespace longreach {

void merge_adapters(Transformer& model) {
  const at::NoGradGuard no_grad;
  const auto merged = merged_weights(model);
  for (auto& item : model.named_parameters()) {
    if (is_adapter_parameter(item.key())) item.value().zero_();
    if (const auto found = merged.find(item.key()); found != merged.end()) item.value().copy_(found->second);
  }
}

}  // namespace longreach
