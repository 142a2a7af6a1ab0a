// The layer of BiFormer's vision model: regions of an image in place of regions of a sequence.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/topk.h>

#include <cmath>

#include "layers/attention/biformer/biformer.h"
#include "layers/basic/linear.h"
#include "layers/ops/common/check.h"
#include "layers/ops/interval_attention/interval_attention.h"

namespace longreach {
namespace {

void check_image(const at::Tensor& x, const BiformerImageWeights& weights,
                 const BiformerImageOptions& options) {
  expect_shape(x, "x", {-1, -1, -1, -1});
  const int64_t width = x.size(3), n = options.n_win;
  check<ConfigError>(options.num_heads >= 1 && width % options.num_heads == 0,
                     "num_heads: ", options.num_heads, ", expected a divisor of the width ", width);
  check<ConfigError>(n >= 1 && x.size(1) % n == 0 && x.size(2) % n == 0, "n_win: ", n,
                     ", expected a divisor of height and width, ", x.size(1), " x ", x.size(2));
  check<ConfigError>(options.topk >= 1 && options.topk <= n * n, "topk: ", options.topk,
                     ", expected 1 to the number of regions, ", n * n);
  expect_shape(weights.qkv, "qkv", {3 * width, width});
  expect_shape(weights.wo, "wo", {width, width});
  expect_shape(weights.lepe, "lepe", {width, 1, -1, -1});
  if (options.regions.defined()) {
    expect_dtype(options.regions, "regions", {at::kLong});
    expect_shape(options.regions, "regions", {x.size(0), n * n, options.topk});
    check<ShapeError>(((options.regions >= 0) & (options.regions < n * n)).all().item<bool>(),
                      "regions: expected numbers from 0 to ", n * n - 1);
  }
  check<ShapeError>(weights.lepe.size(2) % 2 == 1 && weights.lepe.size(3) % 2 == 1, "lepe: a kernel of ",
                    weights.lepe.sizes(), ", expected odd sides");
}

// [B, H, W, C] -> [B, regions, pixels of a region, C], and back.
at::Tensor to_regions(const at::Tensor& x, int64_t n) {
  const int64_t h = x.size(1) / n, w = x.size(2) / n;
  return x.reshape({x.size(0), n, h, n, w, x.size(3)})
      .permute({0, 1, 3, 2, 4, 5})
      .reshape({x.size(0), n * n, h * w, x.size(3)});
}
at::Tensor to_image(const at::Tensor& x, int64_t n, at::IntArrayRef shape) {
  const int64_t h = shape[1] / n, w = shape[2] / n;
  return x.reshape({shape[0], n, n, h, w, shape[3]}).permute({0, 1, 3, 2, 4, 5}).reshape(shape);
}

// x [B, regions, pixels, C] -> [B, regions, topk, pixels, C]: the regions that each region reads.
at::Tensor gathered(const at::Tensor& x, const at::Tensor& regions) {
  const int64_t batch = x.size(0), count = x.size(1), topk = regions.size(2);
  return x.gather(1, regions.reshape({batch, count * topk, 1, 1}).expand({-1, -1, x.size(2), x.size(3)}))
      .view({batch, count, topk, x.size(2), x.size(3)});
}

}  // namespace

BiformerImageOutput biformer_image(const at::Tensor& x, const BiformerImageWeights& weights,
                                   const BiformerImageOptions& options) {
  check_image(x, weights, options);
  const int64_t n = options.n_win, batch = x.size(0), width = x.size(3), count = n * n;
  const double scale = options.scale.value_or(1.0 / std::sqrt(static_cast<double>(width)));
  const auto parts = to_regions(linear_map(x, weights.qkv, weights.qkv_bias), n).split(width, -1);
  const at::Tensor &q = parts[0], &k = parts[1], &v = parts[2];

  // Scores in float32 at least: the choice decides more than rounding may.
  const auto wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor region_q = q.to(wide).mean(2), region_k = k.to(wide).mean(2);
  if (!options.soft_routing) region_q = region_q.detach(), region_k = region_k.detach();
  const at::Tensor scores = (region_q * scale).matmul(region_k.transpose(1, 2)),
                   regions = options.regions.defined()
                                 ? options.regions
                                 : std::get<1>(at::topk(scores.detach(), options.topk, -1)),
                   share = at::softmax(scores.gather(2, regions), -1);

  const auto selected = [&](const at::Tensor& part) {
    at::Tensor all = gathered(part, regions);
    if (options.soft_routing) all = all * share.to(all.scalar_type()).unsqueeze(-1).unsqueeze(-1);
    return all.reshape({batch * count, -1, options.num_heads, width / options.num_heads});
  };
  const at::Tensor queries = q.reshape({batch * count, -1, options.num_heads, width / options.num_heads});
  const at::Tensor o = interval_attention_by(options.implementation, queries, selected(k), selected(v),
                                             {.causal = false}, scale)
                           .o;

  const at::Tensor values = to_image(v, n, x.sizes()).permute({0, 3, 1, 2}),
                   local = at::conv2d(values, weights.lepe, weights.lepe_bias, {1, 1},
                                      {weights.lepe.size(2) / 2, weights.lepe.size(3) / 2}, {1, 1}, width)
                               .permute({0, 2, 3, 1});
  const at::Tensor mixed = to_image(o.reshape({batch, count, -1, width}), n, x.sizes()) + local;
  return {linear_map(mixed, weights.wo, weights.wo_bias), regions, share, scores};
}

}  // namespace longreach
