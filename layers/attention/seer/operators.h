// The shared operators by their fused kernels or by their references: the one place that chooses.
#pragma once
#include "layers/ops/block_attention/block_attention.h"
#include "layers/ops/common/implementation.h"
#include "layers/ops/selection/selection.h"

namespace longreach::seer {

inline at::Tensor pool(const at::Tensor& x, const std::vector<Pool>& pools, const PoolWindows& windows,
                       Implementation implementation) {
  return (implementation == Implementation::fused ? pool_blocks : pool_blocks_reference)(x, pools, windows);
}

inline at::Tensor select(const at::Tensor& q, const at::Tensor& k, int64_t lists, const BlockScores& how,
                         const BlockGeometry& geometry, const SelectionRule& rule,
                         Implementation implementation) {
  const bool fused = implementation == Implementation::fused;
  return (fused ? select_blocks : select_blocks_reference)(q, k, lists, how, geometry, rule, false).indices;
}

inline BlockAttentionOutput attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const BlockLists& lists, const BlockAttentionOptions& options,
                                   Implementation implementation) {
  const bool fused = implementation == Implementation::fused;
  return (fused ? block_attention : block_attention_reference)(q, k, v, lists, options);
}

}  // namespace longreach::seer
