// One element stays on the calling thread, so the choice is made before any other thread asks.
#include "layers/ops/common/vector_math.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/ones.h>

namespace longreach {

void settle_vector_math() {
  static const bool settled = [] {
    for (const auto dtype : {at::kFloat, at::kDouble}) {
      const at::Tensor one = at::ones({1}, dtype);
      (void)one.cos(), (void)one.sin(), (void)one.log(), (void)one.exp();
    }
    return true;
  }();
  (void)settled;
}

}  // namespace longreach
