// choose_blocks: from a tensor of scores to lists.
#include "layers/ops/common/check.h"
#include "layers/ops/common/kernel_input.h"
#include "layers/ops/selection/cuda/op.h"
#include "layers/ops/selection/rows.h"

namespace longreach {
namespace {

template <class Score>
selection::Lists choose(const at::Tensor& scores, const std::vector<selection::Row>& rows,
                        const SelectionRule& rule) {
  return selection::choose_cpu(selection::Choice<Score>{.scores = scores.const_data_ptr<Score>(),
                                                        .lists = scores.size(0) * scores.size(1),
                                                        .row_count = scores.size(2),
                                                        .blocks = scores.size(3),
                                                        .rows = rows.data(),
                                                        .limits = selection::limits(rule)});
}

}  // namespace

at::Tensor choose_blocks(const at::Tensor& scores, const BlockGeometry& geometry, const SelectionRule& rule) {
  selection::check_rule(rule, geometry);
  expect_shape(scores, "scores", {-1, -1, -1, -1});
  expect_dtype(scores, "scores", {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf});
  const auto documents = selection::documents(geometry, scores.size(2));
  expect_shape(scores, "scores", {-1, -1, -1, most_blocks(documents, geometry.key_block)});
  const bool wide = scores.scalar_type() == at::kDouble;
  if (runs_on_cuda(scores) && !wide)
    return selection::choose_cuda(scores.detach().to(at::kFloat).contiguous(), geometry, rule);
  const auto rows = selection::rows(documents, geometry, rule);
  const at::Tensor values = scores.detach().to(at::kCPU, wide ? at::kDouble : at::kFloat).contiguous();
  const selection::Lists lists =
      wide ? choose<double>(values, rows, rule) : choose<float>(values, rows, rule);
  return selection::list_tensor(lists, documents, geometry, rule, scores, scores.size(1)).to(scores.device());
}

}  // namespace longreach
