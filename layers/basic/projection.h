// Linear maps as functions, and the low-rank adapters that may be added to them (LoRA, arXiv 2106.09685).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace longreach {

// x [..., in], weight [out, in], bias [out] or undefined -> [..., out] in the dtype of x.
at::Tensor linear_map(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

// What an adapter adds to a linear map of x, scale B A dropout(x), as one pass over the model uses it.
struct LowRank {
  at::Tensor a, b;       // [r, in], [out, r]
  double scale = 1.0;    // lora_alpha / r
  double dropout = 0.0;  // share of the inputs set to zero, the others divided by 1 - dropout; 0: no dropout
  uint64_t seed = 0;     // the mask follows from it and the shape of x alone
};

// weight + scale B A: the one matrix that does what both do together. Computed in float64, rounded once.
at::Tensor merged(const at::Tensor& weight, const LowRank& adapter);

// A linear map as a value, for layers in functional form: where they take one they take a weight alone as
// well.
struct Projection {
  at::Tensor weight, bias;         // [out, in]; [out] or undefined
  std::optional<LowRank> adapter;  // added to the product

  Projection() = default;
  Projection(at::Tensor weight, at::Tensor bias = {}, std::optional<LowRank> adapter = std::nullopt)
      : weight(std::move(weight)), bias(std::move(bias)), adapter(std::move(adapter)) {}
};

// The adapter's products run in the dtype of x too. Its mask is drawn on the CPU and copied, so that it does
// not depend on the device.
at::Tensor linear_map(const at::Tensor& x, const Projection& projection);

// Several maps of one x: the same as each alone. In decoding their products are one round of the threads.
std::vector<at::Tensor> linear_maps(const at::Tensor& x, const std::vector<Projection>& projections);

}  // namespace longreach
