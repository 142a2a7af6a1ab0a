#include "layers/basic/projection.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

#include <algorithm>

#include "layers/ops/matmul/matmul.h"

namespace longreach {
namespace {

at::Tensor dropped(const at::Tensor& x, const LowRank& adapter) {
  if (adapter.dropout == 0.0) return x;
  const double kept = 1.0 - adapter.dropout;
  at::Tensor mask = at::empty(x.sizes(), at::kFloat);
  mask.bernoulli_(kept, at::detail::createCPUGenerator(adapter.seed)).div_(kept);
  return x * mask.to(x.options());
}

}  // namespace

at::Tensor linear_map(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const at::ScalarType dtype = x.scalar_type();
  // A copy of a weight that trains stays until the backward pass; of one that is frozen it is made twice.
  const at::Tensor w = weight.requires_grad() ? weight.to(dtype) : weight,
                   b = bias.defined() ? bias.to(dtype) : bias;
  if (w.scalar_type() == dtype && !chooses_matmul_library(x) && !has_few_rows(x, w))
    return at::linear(x, w, b);
  const at::Tensor y = linear_product(x, w);
  return b.defined() ? y + b : y;
}

at::Tensor merged(const at::Tensor& weight, const LowRank& adapter) {
  const at::Tensor product = adapter.b.to(at::kDouble).matmul(adapter.a.to(at::kDouble));
  return weight.to(at::kDouble).add(product, adapter.scale).to(weight.scalar_type());
}

at::Tensor linear_map(const at::Tensor& x, const Projection& projection) {
  const at::Tensor y = linear_map(x, projection.weight, projection.bias);
  if (!projection.adapter) return y;
  const LowRank& adapter = *projection.adapter;
  const at::Tensor narrow = linear_map(dropped(x, adapter), adapter.a);
  return y.add(linear_map(narrow, adapter.b), adapter.scale);
}

std::vector<at::Tensor> linear_maps(const at::Tensor& x, const std::vector<Projection>& projections) {
  const auto joins = [&](const Projection& p) {
    return !p.adapter && !p.bias.defined() && has_few_rows(x, p.weight);
  };
  std::vector<at::Tensor> results;
  if (at::GradMode::is_enabled() || !std::all_of(projections.begin(), projections.end(), joins)) {
    for (const Projection& projection : projections) results.push_back(linear_map(x, projection));
    return results;
  }
  for (const Projection& projection : projections) results.push_back(projection.weight);
  return few_rows_products(x, results);
}

}  // namespace longreach
