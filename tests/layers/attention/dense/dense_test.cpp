// Dense attention: the promises of a mechanism, with grouped heads, QK-norm, biases and without positions.
#include "layers/attention/dense/dense.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "core/error.h"
#include "layers/attention/attention.h"
#include "layers/attention/dense/module.h"
#include "tests/support/mechanism_checks.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using namespace test;

LayerSite rich_site() {
  LayerSite site = norm_site();
  site.attention_bias = true;
  return site;
}

TEST(Dense, IsCausal) { expect_causal(DenseConfig{}, small_site()); }

TEST(Dense, DecodesAsForward) {
  expect_decode_equals_forward(DenseConfig{}, small_site());
  expect_decode_equals_forward(DenseConfig{}, rich_site());
  expect_decode_equals_forward(DenseConfig{.rope = false}, small_site());
  expect_decode_equals_forward(DenseConfig{.output_gate = true}, small_site());
}

TEST(Dense, DecodesAsForwardBeyondTheFirstCapacityOfTheCache) {
  expect_decode_equals_forward(DenseConfig{}, small_site(), 300);
}

TEST(Dense, DecodesAsForwardUnderEveryRopeScaling) {
  // "dynamic" is among the checks of every mechanism.
  for (const char* type : {"linear", "yarn", "llama3"}) {
    LayerSite site = small_site();
    site.rope = {.rope_type = type, .factor = 4.0, .original_max_position_embeddings = 16};
    expect_decode_equals_forward(DenseConfig{}, site);
  }
}

TEST(Dense, PackedDocumentsAreSeparate) {
  expect_packed_equals_separate(DenseConfig{}, rich_site());
  expect_packed_equals_separate(DenseConfig{.output_gate = true}, small_site());
}

TEST(Dense, FusedIsTheFormula) {
  expect_fused_equals_reference(DenseConfig{}, small_site());
  expect_fused_equals_reference(DenseConfig{}, rich_site());
  expect_fused_equals_reference(DenseConfig{.rope = false}, small_site());
  expect_fused_equals_reference(DenseConfig{.output_gate = true}, rich_site());
}

TEST(Dense, BFloat16IsClose) {
  expect_bfloat16_close(DenseConfig{}, rich_site());
  expect_bfloat16_close(DenseConfig{.output_gate = true}, rich_site());
}

TEST(Dense, TheCacheGrowsInStepsAndRefusesMoreThanMaxTokens) {
  EXPECT_EQ(decode_bytes(DenseConfig{}, small_site(), 1), 2 * 256 * 2 * 8 * 4);
  EXPECT_EQ(decode_bytes(DenseConfig{}, small_site(), 257), 2 * 512 * 2 * 8 * 4);
  EXPECT_EQ(overflow_message(DenseConfig{}, small_site()),
            "decoding: 3 tokens seen and 3 more do not fit max_tokens = 4");
}

using Row = std::vector<double>;

Row row_of(const at::Tensor& x) {
  const at::Tensor wide = x.detach().to(at::kDouble).contiguous();
  return {wide.const_data_ptr<double>(), wide.const_data_ptr<double>() + wide.numel()};
}

// weight x + bias, then, a head of `size` features at a time, the norm and the rotation of Hugging Face's
// Qwen3: x / rms(x) times the weight; feature i turns with feature i + size / 2 by position theta^(-2 i /
// size).
Row projected(const Row& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& norm,
              int64_t size, double eps, double position) {
  Row out = row_of(bias);
  for (size_t o = 0; o < out.size(); ++o) {
    const Row w = row_of(weight[static_cast<int64_t>(o)]);
    out[o] += std::inner_product(x.begin(), x.end(), w.begin(), 0.0);
  }
  if (!norm.defined()) return out;
  const Row scale = row_of(norm);
  const auto features = static_cast<size_t>(size);
  for (size_t first = 0; first < out.size(); first += features) {
    double squares = 0;
    for (size_t i = 0; i < features; ++i) squares += out[first + i] * out[first + i];
    for (size_t i = 0; i < features; ++i)
      out[first + i] *= scale[i] / std::sqrt(squares / static_cast<double>(size) + eps);
    for (size_t i = 0; i < features / 2; ++i) {
      const double angle =
          position * std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(size));
      const double a = out[first + i], b = out[first + i + features / 2];
      out[first + i] = a * std::cos(angle) - b * std::sin(angle);
      out[first + i + features / 2] = b * std::cos(angle) + a * std::sin(angle);
    }
  }
  return out;
}

// The layer in loops of float64 numbers, nothing of it from the library: 4 heads over 2 key heads.
at::Tensor dense_by_loops(Attention& module, const LayerSite& site, const at::Tensor& x) {
  const auto parameters = module.named_parameters();
  const int64_t tokens = x.size(1), size = site.head_dim, group = site.num_heads / site.num_kv_heads;
  std::vector<Row> q, k, v;
  for (int64_t t = 0; t < tokens; ++t) {
    const auto of = [&](const std::string& name, bool turned) {
      return projected(row_of(x[0][t]), parameters[name + "_proj.weight"], parameters[name + "_proj.bias"],
                       turned ? parameters[name + "_norm.weight"] : at::Tensor(), size, site.norm_eps,
                       static_cast<double>(t));
    };
    q.push_back(of("q", true)), k.push_back(of("k", true)), v.push_back(of("v", false));
  }
  const at::Tensor y = at::zeros({1, tokens, site.hidden_size}, at::kDouble);
  for (int64_t t = 0; t < tokens; ++t) {
    Row o(static_cast<size_t>(site.num_heads * size));
    for (int64_t h = 0; h < site.num_heads; ++h) {
      const int64_t at_q = h * size, at_k = h / group * size;
      const auto query = q[static_cast<size_t>(t)].begin() + at_q;
      Row weights;
      for (int64_t j = 0; j <= t; ++j)
        weights.push_back(
            std::exp(std::inner_product(query, query + size, k[static_cast<size_t>(j)].begin() + at_k, 0.0) /
                     std::sqrt(size)));
      const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
      for (size_t j = 0; j < weights.size(); ++j)
        for (int64_t i = 0; i < size; ++i)
          o[static_cast<size_t>(at_q + i)] += weights[j] / sum * v[j][static_cast<size_t>(at_k + i)];
    }
    if (parameters.contains("o_gate.weight"))
      for (size_t i = 0; i < o.size(); ++i) {
        const Row w = row_of(parameters["o_gate.weight"][static_cast<int64_t>(i)]), token = row_of(x[0][t]);
        o[i] /= 1.0 + std::exp(-std::inner_product(w.begin(), w.end(), token.begin(), 0.0));
      }
    for (int64_t c = 0; c < site.hidden_size; ++c) {
      const Row w = row_of(parameters["o_proj.weight"][c]);
      y[0][t][c] = std::inner_product(o.begin(), o.end(), w.begin(), 0.0);
    }
  }
  return y;
}

void expect_layer_in_loops(const DenseConfig& config) {
  LayerSite site = rich_site();
  const int64_t tokens = 33;
  const at::Tensor x = normal({1, tokens, site.hidden_size}, 1);
  const Batch batch{.positions = at::arange(tokens, at::kLong).unsqueeze(0)};
  const at::NoGradGuard no_grad;
  const auto fused = make_attention(config, site);
  uint64_t seed = 9;  // no two alike, so that none can stand for another
  for (auto& parameter : fused->parameters())
    parameter.add_(normal(parameter.sizes(), seed++, at::kFloat), 0.1);
  const at::Tensor expected = dense_by_loops(*fused, site, x);
  EXPECT_LE(relative_error(fused->forward(x.to(at::kFloat), batch).y, expected), 2e-6);
  site.implementation = Implementation::reference;
  const auto reference = make_attention(config, site);
  const auto from = fused->named_parameters();
  for (auto& item : reference->named_parameters()) item.value().copy_(from[item.key()]);
  reference->to(at::kDouble);
  EXPECT_LE(relative_error(reference->forward(x, batch).y, expected), 1e-13);
}

TEST(Dense, IsTheLayerInLoopsOfFloat64) {
  expect_layer_in_loops({});
  expect_layer_in_loops({.output_gate = true});
}

// One key: the output is its value. Two equal keys: the mean of their values.
TEST(Dense, SmallCasesByHand) {
  const at::Tensor q = normal({1, 2, 1, 4}, 1), k = normal({1, 1, 1, 4}, 2).expand({1, 2, 1, 4}),
                   v = normal({1, 2, 1, 3}, 3);
  const at::Tensor o = dense_attention_reference(q, k, v);
  EXPECT_LE(relative_error(o.select(1, 0), v.select(1, 0)), 1e-15);
  EXPECT_LE(relative_error(o.select(1, 1), v.mean(1)), 1e-15);
}

TEST(Dense, SaysWhyCudnnCannotComputeIt) {
  const at::Tensor x = normal({1, 8, 2, 64}, 1, at::kBFloat16);
  const Heads heads{x, x, x};
  EXPECT_FALSE(dense::takes_cudnn("auto", heads, {}));
  EXPECT_FALSE(dense::takes_cudnn("longreach", heads, {}));
  EXPECT_THAT(
      [&] { dense::takes_cudnn("cudnn", heads, {}); },
      testing::ThrowsMessage<ConfigError>("backend = \"cudnn\": tensors are on cpu; it computes on CUDA; "
                                          "\"auto\" and \"longreach\" take any case"));
}

}  // namespace
}  // namespace longreach
