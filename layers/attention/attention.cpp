// Checks that every mechanism makes of what a model hands it.
#include "layers/attention/attention.h"

#include "layers/ops/common/check.h"

namespace longreach {

std::map<std::string, double> Attention::loss_counts(const std::vector<Batch>&) const { return {}; }

void expect_decode_input(const at::Tensor& x, int64_t batch, int64_t used, int64_t limit) {
  expect_shape(x, "x", {batch, -1, -1});
  check<ShapeError>(x.size(1) >= 1, "x: shape ", x.sizes(), ", expected at least one token to decode");
  check(used + x.size(1) <= limit, "decoding: ", used, " tokens seen and ", x.size(1),
        " more do not fit max_tokens = ", limit);
}

}  // namespace longreach
