// Token embedding.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "layers/basic/module.h"

namespace longreach {

class Embedding : public Module {
 public:
  // Weight [vocab, size] drawn from normal(0, std) with `seed`.
  Embedding(int64_t vocab, int64_t size, double std, uint64_t seed);

  // tokens int64 [B, T] -> [B, T, C] in the dtype of the weight. Throws DataError for an id outside the
  // vocabulary.
  at::Tensor forward(const at::Tensor& tokens) const;
  const at::Tensor& weight() const { return weight_; }

 private:
  at::Tensor weight_;
};

}  // namespace longreach
