// Pooling and scores of blocks from their formulae: any floating dtype, whole maps in memory.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <limits>

#include "layers/ops/common/check.h"
#include "layers/ops/selection/rows.h"
#include "layers/ops/selection/windows.h"

namespace longreach {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// x [B, n, H, D] of one window -> [B, H, D]. The gradient of index_select goes to the first of tied tokens.
at::Tensor pool_window(const at::Tensor& x, Pool pool) {
  if (pool == Pool::mean) return x.mean(1);
  const at::Tensor best = pool == Pool::max ? x.argmax(1, true) : x.argmin(1, true);
  return x.gather(1, best).squeeze(1);
}

// overlap / stride of windows (rows) and blocks (columns).
at::Tensor overlaps(const BlockScores& how, int64_t windows, int64_t blocks, int64_t key_block,
                    const at::TensorOptions& options) {
  const at::Tensor window = at::arange(windows, options).unsqueeze(1) * static_cast<double>(how.stride);
  const at::Tensor block = at::arange(blocks, options) * static_cast<double>(key_block);
  const at::Tensor end =
      (window + static_cast<double>(how.width)).minimum(block + static_cast<double>(key_block));
  return (end - window.maximum(block)).clamp_min(0.0) / static_cast<double>(how.stride);
}

// Which windows the rows of a document score: bool [rows, windows].
at::Tensor scored_windows(const BlockScores& how, const BlockGeometry& geometry,
                          const PackedDocument& document) {
  const int64_t windows = document.windows;
  const at::Tensor begin = at::arange(windows, at::kLong) * how.stride, end = begin + how.width,
                   first = (at::arange(document.rows, at::kLong) * geometry.query_block + geometry.offset)
                               .unsqueeze(1),
                   last = (first + geometry.query_block).clamp_max(document.keys) - 1;
  switch (how.visible) {
    case BlockScores::Visible::started:
      return begin <= last;
    case BlockScores::Visible::complete:
      return end - 1 <= first;
    case BlockScores::Visible::past:
      return end <= first.div(geometry.key_block, "floor") * geometry.key_block;
    case BlockScores::Visible::all:
      break;
  }
  return at::ones({document.rows, windows}, at::kBool);
}

// q [B, rows, H, D], k [B, windows, HK, D] of one document -> scores [B, Hl, rows, blocks].
at::Tensor document_scores(const at::Tensor& q, const at::Tensor& k, int64_t lists, const BlockScores& how,
                           const BlockGeometry& geometry, const PackedDocument& document) {
  const int64_t blocks = document.blocks(geometry.key_block), windows = document.windows;
  const double scale = how.scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(3))));
  const auto dtype = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor keys = k.to(dtype).repeat_interleave(q.size(2) / k.size(2), 2).transpose(1, 2);
  at::Tensor scores = q.to(dtype).transpose(1, 2).matmul(keys.transpose(-1, -2)) * scale;
  const at::Tensor hidden = scored_windows(how, geometry, document).logical_not().to(q.device());
  scores = scores.masked_fill(hidden, -kInfinity);
  if (how.softmax) scores = scores.softmax(-1).masked_fill(hidden, 0.0);
  scores = scores.unflatten(1, {lists, -1});
  scores = how.vote == BlockScores::Vote::mean  ? scores.mean(2)
           : how.vote == BlockScores::Vote::sum ? scores.sum(2)
                                                : std::get<0>(scores.max(2));
  if (how.width == geometry.key_block && how.stride == geometry.key_block) {
    // Blocks past the last window: a partial block that has none.
    const at::Tensor rest = at::full({scores.size(0), scores.size(1), scores.size(2), blocks - windows},
                                     how.softmax ? 0.0 : -kInfinity, scores.options());
    return at::cat({scores, rest}, 3);
  }
  return scores.matmul(overlaps(how, windows, blocks, geometry.key_block, scores.options()));
}

}  // namespace

at::Tensor pool_blocks_reference(const at::Tensor& x, const std::vector<Pool>& pools,
                                 const PoolWindows& windows) {
  selection::check_pool(x, pools, windows);
  std::vector<at::Tensor> pooled;
  for (const PackedDocument& document : selection::document_windows(windows, x.size(1))) {
    for (int64_t i = 0; i < document.windows; ++i) {
      const int64_t first = i * windows.stride, count = std::min(windows.width, document.keys - first);
      const at::Tensor window = x.narrow(1, document.key + first, count);
      std::vector<at::Tensor> sides;
      for (const Pool pool : pools) sides.push_back(pool_window(window, pool));
      pooled.push_back(at::cat(sides, -1).unsqueeze(1));
    }
  }
  // Without windows: nothing, on the tape like any other output.
  if (pooled.empty()) return at::cat(std::vector<at::Tensor>(pools.size(), x.narrow(1, 0, 0)), -1);
  return at::cat(pooled, 1);
}

Selection select_blocks_reference(const at::Tensor& q, const at::Tensor& k, int64_t lists,
                                  const BlockScores& how, const BlockGeometry& geometry,
                                  const SelectionRule& rule, bool keep_scores) {
  selection::check_select(q, k, lists, how, geometry, rule);
  const auto documents = selection::documents(geometry, how, q.size(1));
  const int64_t blocks = most_blocks(documents, geometry.key_block);
  at::Tensor scores = at::full({q.size(0), lists, q.size(1), blocks}, -kInfinity,
                               q.options().dtype(q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat));
  for (const PackedDocument& document : documents) {
    if (document.rows == 0) continue;
    const at::Tensor part = document_scores(q.narrow(1, document.row, document.rows).detach(),
                                            k.narrow(1, document.window, document.windows).detach(), lists,
                                            how, geometry, document);
    scores.narrow(2, document.row, document.rows).narrow(3, 0, part.size(3)).copy_(part);
  }
  std::vector<int64_t> candidates;
  for (const auto& row : selection::rows(documents, geometry, rule)) candidates.push_back(row.candidates);
  const at::Tensor absent = at::arange(blocks, at::kLong) >= at::tensor(candidates, at::kLong).unsqueeze(1);
  scores = scores.masked_fill(absent.to(scores.device()), -kInfinity);
  return {choose_blocks(scores, geometry, rule), keep_scores ? scores : at::Tensor()};
}

}  // namespace longreach
