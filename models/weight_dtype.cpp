#include "models/weight_dtype.h"

#include <ATen/core/grad_mode.h>

namespace longreach {

void store_matrices_as(Transformer& model, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  for (at::Tensor& parameter : model.parameters())
    if (parameter.dim() >= 2) parameter.set_data(parameter.to(dtype));
}

}  // namespace longreach
