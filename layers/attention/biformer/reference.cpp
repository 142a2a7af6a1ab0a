// Region routing in a sequence from its formula: the scores of all pairs of regions, a mask of tokens from
// the chosen ones, the whole matrix of scores.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "layers/attention/biformer/biformer.h"
#include "layers/ops/common/masked_attention.h"
#include "layers/ops/common/packed_documents.h"

namespace longreach {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The mean of each region of x [B, T, H, D], the last one cut at the end: float64 [B, N, H, D].
at::Tensor region_means(const at::Tensor& x, int64_t size) {
  std::vector<at::Tensor> means;
  for (int64_t first = 0; first < x.size(1); first += size)
    means.push_back(
        x.narrow(1, first, std::min(size, x.size(1) - first)).to(at::kDouble).mean(1, /*keepdim=*/true));
  return at::cat(means, 1);
}

// int32 [B, HK, N, topk]: ascending, -1 at the end. q, k: one document.
at::Tensor chosen_regions(const at::Tensor& q, const at::Tensor& k, const BiformerRouting& routing) {
  const int64_t heads = k.size(2), count = ceil_div(k.size(1), routing.region);
  const auto lists = at::TensorOptions().dtype(at::kInt).device(q.device());
  if (count == 0) return at::full({q.size(0), heads, 0, routing.topk}, -1, lists);
  const at::Tensor asks = routing.query == BiformerRouting::Query::mean
                              ? region_means(q, routing.region)
                              : q.slice(1, 0, q.size(1), routing.region).to(at::kDouble);
  at::Tensor scores = asks.unflatten(2, {heads, -1})
                          .sum(3)
                          .transpose(1, 2)
                          .matmul(region_means(k, routing.region).permute({0, 2, 3, 1}));
  const at::Tensor s = at::arange(count, lists.dtype(at::kLong)), r = s.unsqueeze(1);
  if (routing.causal) scores = scores.masked_fill(s > r, -kInfinity).masked_fill(s == r, kInfinity);
  const auto [ranked, order] = at::sort(scores, /*stable=*/true, /*dim=*/-1, /*descending=*/true);
  const int64_t most = std::min(routing.topk, count);
  const at::Tensor best =
      order.narrow(-1, 0, most).masked_fill(ranked.narrow(-1, 0, most) == -kInfinity, count);
  const at::Tensor ascending = std::get<0>(best.sort(-1));
  return at::constant_pad_nd(ascending.masked_fill(ascending == count, -1), {0, routing.topk - most}, -1)
      .to(at::kInt);
}

// bool [B, HK, T, T]: tokens of the chosen regions, no later one when causal.
at::Tensor visible_tokens(const at::Tensor& indices, int64_t tokens, const BiformerRouting& routing) {
  const int64_t count = indices.size(2);
  const at::Tensor places = indices.to(at::kLong);
  at::Tensor map =
      at::zeros({indices.size(0), indices.size(1), count, count + 1}, places.options().dtype(at::kBool));
  map.scatter_(3, places.masked_fill(places < 0, count), true);
  const at::Tensor listed = map.narrow(3, 0, count)
                                .repeat_interleave(routing.region, 2)
                                .repeat_interleave(routing.region, 3)
                                .narrow(2, 0, tokens)
                                .narrow(3, 0, tokens);
  const at::Tensor any = at::ones({tokens, tokens}, listed.options());
  return listed.logical_and(routing.causal ? any.tril() : any);
}

BiformerOutput of_document(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const BiformerRouting& routing, double scale) {
  const at::Tensor indices = chosen_regions(q.detach(), k.detach(), routing);
  const at::Tensor visible =
      visible_tokens(indices, k.size(1), routing).repeat_interleave(q.size(2) / k.size(2), 1);
  const MaskedAttention attended = masked_attention(q, k, v, visible, scale);
  return {attended.o, attended.lse, indices};
}

}  // namespace

BiformerOutput biformer_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                            const BiformerRouting& routing, const at::Tensor& cu_seqlens,
                                            std::optional<double> scale) {
  const double factor = scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(3))));
  std::vector<at::Tensor> o, lse, indices;
  const auto append = [&](int64_t first, int64_t count) {
    const BiformerOutput part = of_document(q.narrow(1, first, count), k.narrow(1, first, count),
                                            v.narrow(1, first, count), routing, factor);
    o.push_back(part.o), lse.push_back(part.lse), indices.push_back(part.indices);
  };
  for (const PackedDocument& document :
       packed_documents(cu_seqlens, cu_seqlens, q.size(1), k.size(1), routing.region))
    append(document.key, document.keys);
  if (o.empty()) append(0, 0);
  return {at::cat(o, 1), at::cat(lse, 2), at::cat(indices, 2)};
}

}  // namespace longreach
