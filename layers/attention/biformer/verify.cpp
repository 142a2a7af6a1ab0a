// Cases of bi-level routing attention: the authors' layer over images, and regions of a sequence.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "layers/attention/biformer/biformer.h"
#include "train/verify/case.h"

namespace longreach {
namespace {

using verify::Case;
using verify::Qkv;
using verify::VectorFile;

void run_region_routing(Case& run) {
  const VectorFile& file = run.file;
  const Qkv in = read_qkv(run);
  const BiformerRouting routing{.region = file.integer("region"),
                                .topk = file.integer("topk"),
                                .causal = file.truth_or("causal", false),
                                .query = BiformerRouting::Query::mean};
  const BiformerOutput out = run.known([&] {
    return biformer_attention(in.q, in.k, in.v, routing, {}, file.scale(in.q.size(3)), run.implementation);
  });
  run.produce_sequence("o", out.o);
  run.produce("lse", out.lse);
  const at::Tensor lists = out.indices.to(at::kLong);
  at::Tensor mask = at::zeros({lists.size(0), lists.size(1), lists.size(2), lists.size(2) + 1}, at::kBool);
  mask.scatter_(3, lists.where(lists >= 0, at::full({}, lists.size(2), at::kLong)), true);
  run.produce("block_mask", mask.narrow(3, 0, lists.size(2)));
}

// Whether `regions` are topk of the largest scores, but for what rounding in `dtype` leaves open.
bool is_choice_of(const at::Tensor& regions, const at::Tensor& scores, at::ScalarType dtype) {
  const int64_t topk = regions.size(-1);
  const at::Tensor named = at::zeros_like(scores).scatter_(-1, regions, 1.0);
  if (!(named.sum(-1) == topk).all().item<bool>()) return false;  // one twice
  const double epsilon = dtype == at::kDouble  ? 2.2e-16
                         : dtype == at::kFloat ? 1.2e-7
                                               : 7.8e-3,
               rounding = 8 * epsilon * scores.abs().max().item<double>();
  const at::Tensor least = std::get<0>(at::topk(scores, topk, -1)).select(-1, topk - 1).unsqueeze(-1);
  return (scores.gather(-1, regions) >= least - rounding).all().item<bool>();
}

}  // namespace

void BiformerConfig::verify(Case& run) {
  if (!run.has("in.x")) return run_region_routing(run);
  const VectorFile& file = run.file;
  const int64_t local = file.integer_or("side_dwconv", 3);
  const BiformerImageWeights weights{.qkv = run.leaf("param.qkv.qkv.weight"),
                                     .qkv_bias = run.leaf("param.qkv.qkv.bias"),
                                     .lepe = run.leaf("param.lepe.weight"),
                                     .lepe_bias = run.leaf("param.lepe.bias"),
                                     .wo = run.leaf("param.wo.weight"),
                                     .wo_bias = run.leaf("param.wo.bias")};
  if (weights.lepe.size(-1) != local)
    run.refuse("side_dwconv ", local, ", but lepe.weight has ", weights.lepe.size(-1), " columns");
  BiformerImageOptions options{.num_heads = file.integer("num_heads"),
                               .n_win = file.integer("n_win"),
                               .topk = file.integer("topk"),
                               .soft_routing = file.truth_or("soft_routing", false),
                               .implementation = run.implementation};
  if (file.config().contains("softmax_scale")) options.scale = file.real("softmax_scale");
  const at::Tensor x = run.leaf("in.x");
  BiformerImageOutput out = run.known([&] { return biformer_image(x, weights, options); });
  // Equal scores leave the choice open, and gradients follow it. The file's choice is taken when it is one of
  // those that the scores allow; any other is compared, and fails.
  const at::Tensor chosen =
      run.has("out.route_idx") ? run.file.tensor("out.route_idx").to(at::kLong) : out.regions;
  if (chosen.sizes() == out.regions.sizes() && is_choice_of(chosen, out.scores.detach(), run.dtype)) {
    options.regions = chosen;
    out = biformer_image(x, weights, options);
  }
  run.produce("o", out.y);
  run.produce_lists("route_idx", out.regions);
  run.produce("route_weight", out.weights);
}

}  // namespace longreach
