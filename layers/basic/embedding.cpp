#include "layers/basic/embedding.h"

#include <ATen/ops/embedding.h>

#include "layers/basic/initialization.h"
#include "layers/ops/common/check.h"

namespace longreach {

Embedding::Embedding(int64_t vocab, int64_t size, double std, uint64_t seed) {
  weight_ = register_parameter("weight", normal_parameter({vocab, size}, std, seed), WeightDecay::yes);
}

at::Tensor Embedding::forward(const at::Tensor& tokens) const {
  expect_dtype(tokens, "tokens", {at::kLong});
  if (tokens.numel() > 0) {
    const int64_t low = tokens.min().item<int64_t>(), high = tokens.max().item<int64_t>(),
                  vocab = weight_.size(0);
    check<DataError>(low >= 0 && high < vocab, "token id ", low < 0 ? low : high,
                     " is outside the vocabulary of ", vocab, " tokens");
  }
  return at::embedding(weight_, tokens);
}

}  // namespace longreach
