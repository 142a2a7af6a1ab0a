// Models whose matrices are bfloat16: how far their logits are from those of float32 on the same weights, and
// decoding beside reading all at once, for every mechanism.
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "models/weight_dtype.h"
#include "tests/support/random_tensors.h"
#include "tests/support/small_config.h"
#include "tests/support/small_model.h"

namespace longreach {
namespace {

using namespace test;

ModelConfig model_with(const std::string& kind) {
  ModelConfig config = small_model();
  config.attention = {{.layers = "0", .config = small_config(make_attention_config(kind))},
                      {.layers = "1", .config = DenseConfig{}}};
  config.resolve(50);
  return config;
}

at::Tensor some_tokens(int64_t tokens) {
  return normal({1, tokens}, 11).mul_(1e4).to(at::kLong).remainder(50);
}

// The logits after each token from the third on.
at::Tensor decoded(Transformer& model, const at::Tensor& tokens) {
  ModelDecodeState state = model.start_decoding(1, tokens.size(1));
  std::vector<at::Tensor> logits{model.decode(tokens.narrow(1, 0, 3), state)};
  for (int64_t i = 3; i < tokens.size(1); ++i) logits.push_back(model.decode(tokens.narrow(1, i, 1), state));
  return at::cat(logits);
}

// A branch rounds what enters it and about ten results on its way (projections, turned heads, attention, gate
// and up, their product, its output) to 2^-9 of themselves at most, while the stream stays in float32. Two
// layers have four branches; as errors of independent sign they add up to sqrt(4 * 11) of one rounding.
const double kLimit = std::sqrt(44.0) * std::exp2(-9);

class Bfloat16Weights : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Kinds, Bfloat16Weights, testing::ValuesIn(attention_kinds()),
                         [](const auto& info) { return info.param; });

TEST_P(Bfloat16Weights, ComputeNearFloat32AndDecodeWhatForwardGives) {
  const at::NoGradGuard no_grad;
  Transformer model(model_with(GetParam()), 1);
  model.eval();
  store_matrices_as(model, at::kBFloat16);
  for (const auto& item : model.named_parameters())
    EXPECT_EQ(item.value().scalar_type(), item.value().dim() >= 2 ? at::kBFloat16 : at::kFloat) << item.key();
  const at::Tensor tokens = some_tokens(40);
  const at::Tensor narrow = decoded(model, tokens),
                   together = model.logits(tokens, whole_rows(1, 40))[0].narrow(0, 2, 38);
  EXPECT_EQ(narrow.scalar_type(), at::kFloat);
  store_matrices_as(model, at::kFloat);
  const at::Tensor exact = decoded(model, tokens);
  EXPECT_LE(relative_error(narrow, exact), kLimit);
  EXPECT_GT(relative_error(narrow, exact), std::exp2(-12)) << "nothing was rounded";
  EXPECT_LE(relative_error(narrow, together), kLimit);
}

}  // namespace
}  // namespace longreach
