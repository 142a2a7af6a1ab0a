// choose_blocks: from a tensor of scores to lists.
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include "layers/ops/check.h"
#include "layers/ops/selection/rows.h"

namespace longreach {

at::Tensor choose_blocks(const at::Tensor& scores, const BlockGeometry& geometry, const SelectionRule& rule) {
  namespace select = selection;
  select::check_rule(rule, geometry);
  expect_shape(scores, "scores", {-1, -1, -1, -1});
  const auto documents = select::documents(geometry, scores.size(2));
  const int64_t blocks = select::most_blocks(documents, geometry.key_block);
  expect_shape(scores, "scores", {-1, -1, -1, blocks});
  const auto rows = select::rows(documents, geometry, rule);
  const at::Tensor values = scores.detach().to(at::kCPU, at::kFloat).contiguous();
  const at::Tensor indices = at::empty(values.sizes(), values.options().dtype(at::kInt));
  const int64_t longest = select::choose_cpu({.scores = values.const_data_ptr<float>(),
                                              .indices = indices.mutable_data_ptr<int32_t>(),
                                              .lists = values.size(0) * values.size(1),
                                              .row_count = values.size(2),
                                              .blocks = blocks,
                                              .rows = rows.data(),
                                              .has_threshold = rule.threshold.has_value(),
                                              .has_mass = rule.mass.has_value(),
                                              .threshold = static_cast<float>(rule.threshold.value_or(0)),
                                              .mass = rule.mass.value_or(0)});
  check<ShapeError>(longest >= 0, "scores: NaN for a candidate block");
  const int64_t fixed = select::list_size(documents, geometry, rule), size = fixed > 0 ? fixed : longest;
  const at::Tensor lists =
      size <= blocks ? indices.narrow(3, 0, size) : at::constant_pad_nd(indices, {0, size - blocks}, -1);
  return lists.contiguous().to(scores.device());
}

}  // namespace longreach
