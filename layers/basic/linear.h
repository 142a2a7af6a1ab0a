// y = x W^T + b, with an adapter where one was added. Parameters stay in their own dtype; the product runs in
// the dtype of x (mixed precision).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "layers/basic/module.h"
#include "layers/basic/projection.h"

namespace longreach {

struct AdapterOptions {
  int64_t r = 8;  // rank
  double scale = 1.0, dropout = 0.0;
  uint64_t seed = 0;  // of A and of the masks
};

class Linear : public Module {
 public:
  // Weight drawn from normal(0, std) with `seed`, bias zero.
  Linear(int64_t in, int64_t out, double std, uint64_t seed, bool bias = false);

  at::Tensor forward(const at::Tensor& x) const { return linear_map(x, projection()); }
  Projection projection() const { return {weight_, bias_, low_rank()}; }
  const at::Tensor& weight() const { return weight_; }  // without the adapter
  double flops() const;                                 // forward, a token

  // Adds children lora_A and lora_B (PEFT's names) whose weights are A [r, in], uniform within 1 / sqrt(in)
  // (PEFT's choice: Kaiming with a = sqrt(5)), and B [out, r], zero: at first the adapter changes nothing.
  // Call once.
  void add_adapter(const AdapterOptions& options);
  bool has_adapter() const { return a_ != nullptr; }
  // Dropout masks are those of this pass until the next call, so that a layer that runs again to recompute
  // its activations sees the same ones. Nothing is dropped in eval().
  void begin_pass(uint64_t pass) { pass_ = pass; }
  // The weight with the adapter in it.
  at::Tensor merged_weight() const;

 private:
  std::optional<LowRank> low_rank() const;

  at::Tensor weight_, bias_;
  AdapterOptions adapter_;
  std::shared_ptr<Linear> a_, b_;  // null: no adapter
  uint64_t pass_ = 0;
};

}  // namespace longreach
