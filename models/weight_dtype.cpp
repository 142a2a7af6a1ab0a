#include "models/weight_dtype.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "layers/basic/embedding.h"
#include "layers/basic/linear.h"

namespace longreach {

void store_matrices_as(Transformer& model, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  constexpr int64_t kLine = 64;  // elements: each matrix begins with a cache line
  const auto room = [](const at::Tensor& matrix) { return (matrix.numel() + kLine - 1) / kLine * kLine; };
  std::vector<at::Tensor> matrices;
  int64_t total = 0;
  for (const at::Tensor& parameter : model.parameters())
    if (parameter.dim() >= 2 && parameter.scalar_type() != dtype) {
      matrices.push_back(parameter);
      total += room(parameter);
    }
  if (matrices.empty()) return;
  const at::Tensor block = at::empty({total}, matrices[0].options().dtype(dtype).requires_grad(false));
  int64_t begin = 0;
  for (at::Tensor& matrix : matrices) {
    const at::Tensor place = block.narrow(0, begin, matrix.numel()).view(matrix.sizes());
    begin += room(matrix);
    matrix.set_data(place.copy_(matrix));
  }
}

void store_frozen_weights_as(Transformer& model, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  model.compute_in(at::kFloat);
  const auto store = [&](at::Tensor weight) {
    if (!weight.requires_grad()) weight.set_data(weight.to(dtype));
  };
  for (const auto& module : model.modules(false)) {
    if (const auto linear = std::dynamic_pointer_cast<Linear>(module)) store(linear->weight());
    if (const auto embedding = std::dynamic_pointer_cast<Embedding>(module)) store(embedding->weight());
  }
}

}  // namespace longreach
