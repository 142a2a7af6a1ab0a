// The choice of blocks in lucidrains' form. Means commute with the product q k, so that a block's logit is
// that of the group's mean query and the block's mean compressed key: one small select_blocks, and one
// interval_attention for the softmax's denominator.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>

#include "layers/attention/nsa/branches.h"
#include "layers/ops/common/packed_documents.h"

namespace longreach::nsa {
namespace {

constexpr double kNothing = -1e3, kLeastValue = 1e-10;

// Blocks of each document whose windows are all there, as bounds of the row's blocks.
struct Blocks {
  at::Tensor keys;                        // [B, blocks, HK, D]
  std::vector<PackedDocument> documents;  // window, windows: blocks
};

Blocks mean_blocks(const NsaInput& in, const NsaOptions& options,
                   const std::vector<PackedDocument>& documents) {
  const int64_t ratio = options.block_size / options.compress_stride;
  const PoolWindows pool{ratio, ratio, false, window_cu_seqlens(nsa_windows(options, in.cu_seqlens))};
  Blocks blocks{pool_blocks(in.k_cmp, {Pool::mean}, pool), documents};
  int64_t first = 0;
  for (PackedDocument& document : blocks.documents) {
    document.windows /= ratio;
    document.window = first;
    first += document.windows;
  }
  return blocks;
}

// What each row sees: blocks before its own. int32 [1, 1, Tq]; first: [Tq] the document's first block of the
// row.
Bounds past_blocks(const NsaOptions& options, const std::vector<PackedDocument>& documents, int64_t queries,
                   at::Tensor& own) {
  const Bounds bounds{at::zeros({1, 1, queries}, at::kInt), at::zeros({1, 1, queries}, at::kInt)};
  own = at::zeros({queries}, at::kInt);
  auto *lo = bounds.lo.mutable_data_ptr<int32_t>(), *hi = bounds.hi.mutable_data_ptr<int32_t>(),
       *last = own.mutable_data_ptr<int32_t>();
  for (const PackedDocument& document : documents)
    for (int64_t row = 0; row < document.queries; ++row) {
      const int64_t block = document.position(row) / options.block_size;
      *lo++ = static_cast<int32_t>(document.window);
      *hi++ = static_cast<int32_t>(document.window + std::min(block, document.windows));
      *last++ = static_cast<int32_t>(block);
    }
  return bounds;
}

}  // namespace

Selection choose_by_mean_logit(const NsaInput& in, const NsaOptions& options,
                               const std::vector<PackedDocument>& documents, bool keep_scores) {
  const at::NoGradGuard no_grad;
  const at::Tensor query = in.q_cmp.defined() ? in.q_cmp : in.q;
  const int64_t lists = options.shared_selection ? in.k.size(2) : in.q.size(2), queries = query.size(1);
  const at::Tensor q = options.shared_selection ? query.unflatten(2, {lists, -1}).mean(3) : query;
  const Blocks blocks = mean_blocks(in, options, documents);
  const double scale = options.scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(3))));

  const BlockScores how{.visible = BlockScores::Visible::past,
                        .softmax = false,
                        .scale = scale,
                        .width = options.block_size,
                        .stride = options.block_size,
                        .partial = false};
  const BlockGeometry geometry{.query_block = 1,
                               .key_block = options.block_size,
                               .tokens = in.k.size(1),
                               .offset = in.k.size(1) - queries,
                               .cu_seqlens = in.cu_seqlens};
  const SelectionRule rule{
      .top_k = options.num_blocks, .threshold = -std::numeric_limits<double>::infinity(), .latest = 0};
  const at::Tensor chosen = select_blocks(q, blocks.keys, lists, how, geometry, rule).indices;

  at::Tensor own;
  const Bounds past = past_blocks(options, blocks.documents, queries, own);
  IntervalMask mask;
  mask.lo = past.lo.to(q.device());
  mask.hi = past.hi.to(q.device());
  const at::Tensor lse = interval_attention(q, blocks.keys, blocks.keys, mask, scale).lse;  // [B, Hl, T]
  // A chosen block's key, [B, Hl, T, S, D]: its logit once more, as the lists carry none.
  const int64_t share = lists / blocks.keys.size(2);
  const at::Tensor found = chosen >= 0;
  const at::Tensor at = (chosen.clamp_min(0) + mask.lo.unsqueeze(-1)).to(at::kLong);
  const at::Tensor keys = blocks.keys.repeat_interleave(share, 2).transpose(1, 2);
  at::Tensor value = at::zeros(chosen.sizes(), lse.options());
  if (keys.size(2) > 0) {
    const at::Tensor flat =
        at.clamp_max(keys.size(2) - 1).flatten(2).unsqueeze(-1).expand({-1, -1, -1, q.size(3)});
    const at::Tensor rows = keys.gather(2, flat).unflatten(2, {queries, chosen.size(3)});
    const at::Tensor logit = (rows * q.transpose(1, 2).unsqueeze(3)).to(lse.scalar_type()).sum(-1) * scale;
    const at::Tensor total = at::logaddexp(lse, at::full({}, kNothing, lse.options())).unsqueeze(-1);
    value = (logit - total).exp().masked_fill(found.logical_not(), 0.0);
  }
  Selection selection;
  const at::Tensor kept = at::where(value > kLeastValue, chosen, at::full({}, -1, chosen.options()));
  const at::Tensor last =
      own.to(chosen.device()).view({1, 1, queries, 1}).expand({chosen.size(0), chosen.size(1), queries, 1});
  selection.indices = at::cat({kept, last}, 3).contiguous();
  if (!keep_scores) return selection;
  const int64_t most = most_blocks(documents, options.block_size);
  selection.scores =
      at::zeros({chosen.size(0), lists, queries, most + 1}, value.options())
          .scatter(3, chosen.where(found, at::full({}, most, chosen.options())).to(at::kLong), value)
          .narrow(3, 0, most);
  return selection;
}

}  // namespace longreach::nsa
