// Rules without a fixed number of entries run twice: to count, then to write. Nothing of the size of queries
// x blocks is kept between.
#include "layers/ops/selection/cuda/op.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "layers/ops/common/check.h"
#include "layers/ops/common/kernel_input.h"
#include "layers/ops/cuda/run_plan.h"
#include "layers/ops/selection/cuda/plan.h"
#include "layers/ops/selection/rows.h"
#include "layers/ops/selection/tensors.h"

namespace longreach::selection {
namespace {

RuleParams rule_params(const std::vector<PackedDocument>& documents, const BlockGeometry& geometry,
                       const SelectionRule& rule) {
  RuleParams p{.documents = documents,
               .rows = row_count(documents),
               .blocks = most_blocks(documents, geometry.key_block),
               .query_block = geometry.query_block,
               .key_block = geometry.key_block,
               .offset = geometry.offset,
               .causal = rule.causal,
               .first = rule.first,
               .latest = rule.latest,
               .limits = limits(rule)};
  for (const PackedDocument& d : documents)
    p.budgets.push_back(row_budget(rule, d.blocks(geometry.key_block)));
  return p;
}

// The longest list, as far as lists were counted.
int64_t read_status(const at::Tensor& status) {
  const at::Tensor found = status.to(at::kCPU);
  const auto* words = found.const_data_ptr<int32_t>();
  check_scores(words[0] != 0);
  return words[1];
}

// run(rule): launches with this rule.
template <class Run>
at::Tensor make_lists(RuleParams& rule, std::optional<int64_t> size, const at::Tensor& like, int64_t groups,
                      const Run& run) {
  const auto options = like.options().dtype(at::kInt);
  const at::Tensor status = at::zeros({2}, options);
  rule.status = status.mutable_data_ptr<int32_t>();
  if (!size) {
    run(rule);
    size = read_status(status);
  }
  const at::Tensor indices = at::empty({like.size(0), groups, rule.rows, *size}, options);
  if (indices.numel() == 0) return indices;
  rule.size = *size;
  rule.indices = indices.mutable_data_ptr<int32_t>();
  run(rule);
  read_status(status);
  return indices;
}

CudaVisible visible(BlockScores::Visible visible) {
  switch (visible) {
    case BlockScores::Visible::started:
      return CudaVisible::started;
    case BlockScores::Visible::complete:
      return CudaVisible::complete;
    case BlockScores::Visible::past:
      return CudaVisible::past;
    case BlockScores::Visible::all:
      break;
  }
  return CudaVisible::all;
}

}  // namespace

at::Tensor choose_cuda(const at::Tensor& scores, const BlockGeometry& geometry, const SelectionRule& rule) {
  const auto found = documents(geometry, scores.size(2));
  ChooseParams p{.rule = rule_params(found, geometry, rule),
                 .lists = scores.size(0) * scores.size(1),
                 .scores = scores.const_data_ptr<float>()};
  return make_lists(p.rule, list_size(found, geometry, rule), scores, scores.size(1), [&](const RuleParams&) {
    cuda::run_plan(scores, [&](void* workspace) { return plan_choose(p, workspace); });
  });
}

Selection select_cuda(const at::Tensor& q, const at::Tensor& k, int64_t lists, const BlockScores& how,
                      const BlockGeometry& geometry, const SelectionRule& rule, bool keep_scores) {
  const auto found = documents(geometry, how, q.size(1));
  SelectParams p{
      .rule = rule_params(found, geometry, rule),
      .dtype = kernel_dtype(q),
      .batches = q.size(0),
      .key_count = k.size(1),
      .heads = q.size(2),
      .key_heads = k.size(2),
      .lists = lists,
      .size = q.size(3),
      .q = strided(q),
      .k = strided(k),
      .width = how.width,
      .stride = how.stride,
      .softmax = how.softmax,
      .vote = vote_kind(how.vote),
      .visible = visible(how.visible),
      .scale = static_cast<float>(how.scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(3)))))};
  Selection result;
  if (keep_scores) {
    result.scores = at::empty({q.size(0), lists, q.size(1), p.rule.blocks}, q.options().dtype(at::kFloat));
    p.scores = result.scores.mutable_data_ptr<float>();
  }
  result.indices = make_lists(p.rule, list_size(found, geometry, rule), q, lists, [&](const RuleParams&) {
    cuda::run_plan(q, [&](void* workspace) { return plan_select(p, workspace); });
    p.scores = nullptr;  // a second run need not write them
  });
  return result;
}

void pool_cuda(const Pooling& pooling, const at::Tensor& like) {
  cuda::run_plan(like, [&](void* workspace) { return plan_pool(pooling, workspace); });
}

void pool_backward_cuda(const Pooling& pooling, const at::Tensor& like) {
  cuda::run_plan(like, [&](void* workspace) { return plan_pool_backward(pooling, workspace); });
}

}  // namespace longreach::selection
