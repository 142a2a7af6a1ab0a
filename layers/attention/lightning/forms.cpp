// The layer forms around the recurrence: what becomes of x before it, and of its output.
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>

#include "layers/attention/lightning/lrpe.h"
#include "layers/attention/lightning/module.h"
#include "layers/basic/norm.h"
#include "layers/ops/common/check.h"

namespace longreach::lightning {
namespace {

struct Sizes {
  int64_t batch, tokens, heads, inner, hidden;
  at::Tensor split(const at::Tensor& merged) const {
    return merged.view({batch, tokens, heads, inner / heads});
  }
  at::Tensor merge(const at::Tensor& split) const { return split.reshape({batch, tokens, inner}); }
};

Sizes sizes_of(const at::Tensor& x, const LightningWeights& weights, const LightningOptions& options) {
  const int64_t heads = options.log_decay.numel(), inner = weights.out_proj.weight.size(1),
                hidden = weights.out_proj.weight.size(0);
  check<ShapeError>(heads > 0 && inner % heads == 0, "out_proj: ", inner, " columns are no multiple of ",
                    heads, " heads");
  expect_shape(x, "x", {-1, -1, hidden});
  return {x.size(0), x.size(1), heads, inner, hidden};
}

std::pair<at::Tensor, at::Tensor> with_lrpe(const at::Tensor& q, const at::Tensor& k, const Places& places,
                                            const at::Tensor& theta) {
  if (!theta.defined()) return {q, k};
  expect_shape(theta, "lrpe.theta", {q.size(2), 1, q.size(3)});
  expect_shape(places.positions, "positions", {q.size(0), q.size(1)});
  return lrpe(q, k, places.positions, theta);
}

LightningOutput transnormer(const at::Tensor& x, const Places& places, const LightningWeights& weights,
                            const Sizes& sizes, const Operator& run) {
  const int64_t inner = sizes.inner;
  expect_shape(weights.in_proj.weight, "qkvu_proj", {4 * inner, sizes.hidden});
  const at::Tensor qkvu = linear_map(x, weights.in_proj);
  const auto part = [&](int64_t first) { return sizes.split(qkvu.narrow(-1, first * inner, inner)); };
  const auto [q, k] = with_lrpe(at::silu(part(0)), at::silu(part(1)), places, weights.theta);
  const auto [o, state] = run(q, k, part(2));
  const at::Tensor normed = rms_norm(sizes.merge(o), {}, kNormEps);
  return {linear_map(normed * qkvu.narrow(-1, 3 * inner, inner), weights.out_proj), state};
}

// The output of both gated forms: normed over all heads, times sigmoid of the gate.
at::Tensor gated(const at::Tensor& x, const at::Tensor& o, const LightningWeights& weights,
                 const Sizes& sizes, double eps) {
  expect_shape(weights.norm, "norm", {sizes.inner});
  expect_shape(weights.output_gate.weight, "output_gate", {sizes.inner, sizes.hidden});
  const at::Tensor normed = rms_norm(sizes.merge(o), weights.norm, eps);
  return linear_map(at::sigmoid(linear_map(x, weights.output_gate)) * normed, weights.out_proj);
}

LightningOutput minimax(const at::Tensor& x, const Places& places, const LightningWeights& weights,
                        const Sizes& sizes, const Operator& run) {
  const int64_t size = sizes.inner / sizes.heads;
  expect_shape(weights.in_proj.weight, "qkv_proj", {3 * sizes.inner, sizes.hidden});
  const at::Tensor qkv =
      at::silu(linear_map(x, weights.in_proj)).view({sizes.batch, sizes.tokens, sizes.heads, 3 * size});
  const auto [q, k] = with_lrpe(qkv.narrow(-1, 0, size), qkv.narrow(-1, size, size), places, weights.theta);
  const auto [o, state] = run(q, k, qkv.narrow(-1, 2 * size, size));
  return {gated(x, o, weights, sizes, kNormEps), state};
}

LightningOutput hypenet(const at::Tensor& x, const Places& places, const LightningWeights& weights,
                        const Sizes& sizes, double eps, const Operator& run) {
  const auto project = [&](const Projection& projection, const char* name) {
    expect_shape(projection.weight, name, {sizes.inner, sizes.hidden});
    return sizes.split(linear_map(x, projection));
  };
  const auto place = [&](const at::Tensor& heads, const at::Tensor& norm, const char* name) {
    expect_shape(norm, name, {sizes.inner / sizes.heads});
    const at::Tensor normed = rms_norm(heads, norm, eps);
    return places.rotation.cos.defined() ? rotate(normed, places.rotation) : normed;
  };
  const auto [o, state] = run(place(project(weights.q_proj, "q_proj"), weights.q_norm, "q_norm"),
                              place(project(weights.k_proj, "k_proj"), weights.k_norm, "k_norm"),
                              project(weights.v_proj, "v_proj"));
  return {gated(x, o, weights, sizes, eps), state};
}

}  // namespace

LightningOutput layer_around(const Operator& run, const at::Tensor& x, const Places& places,
                             const LightningWeights& weights, const LightningOptions& options) {
  const Sizes sizes = sizes_of(x, weights, options);
  if (options.form == "transnormer") return transnormer(x, places, weights, sizes, run);
  if (options.form == "minimax") return minimax(x, places, weights, sizes, run);
  check<ConfigError>(options.form == "hypenet", "form = \"", options.form,
                     "\": expected transnormer, minimax or hypenet");
  return hypenet(x, places, weights, sizes, options.norm_eps, run);
}

}  // namespace longreach::lightning
