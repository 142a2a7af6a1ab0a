// The fused form: the compressed branch and the window are interval_attention, the choice is select_blocks,
// the selected branch is block_attention with one list a query and key head.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <limits>

#include "layers/attention/nsa/block_counts.h"
#include "layers/attention/nsa/branches.h"
#include "layers/ops/block_attention/block_attention.h"
#include "layers/ops/common/check.h"
#include "layers/ops/merge/merge.h"

namespace longreach {
namespace nsa {
namespace {

// Bounds of the documents among the keys of the compressed branch: a document's tiles begin with it, whatever
// lies before.
at::Tensor window_bounds_of_documents(const std::vector<PackedDocument>& documents, int64_t slots) {
  std::vector<int32_t> bounds{0};
  for (const PackedDocument& document : documents)
    bounds.push_back(bounds.back() + static_cast<int32_t>(slots + document.windows));
  return at::tensor(bounds, at::kInt);
}

at::Tensor bounds_tensor(int64_t queries) { return at::empty({1, 1, queries}, at::kInt); }

// Each document's windows behind its copy of the memory slots [HK, slots, D].
at::Tensor with_memory(const at::Tensor& windows, const at::Tensor& memory,
                       const std::vector<PackedDocument>& documents) {
  if (!memory.defined()) return windows;
  const at::Tensor slots =
      memory.transpose(0, 1).unsqueeze(0).expand({windows.size(0), -1, -1, -1}).to(windows.scalar_type());
  std::vector<at::Tensor> parts;
  for (const PackedDocument& document : documents) {
    parts.push_back(slots);
    parts.push_back(windows.narrow(1, document.window, document.windows));
  }
  return at::cat(parts, 1);
}

IntervalAttentionOutput compressed_branch(const NsaInput& in, const NsaOptions& options,
                                          const std::vector<PackedDocument>& documents) {
  const int64_t slots = in.memory_k.defined() ? in.memory_k.size(1) : 0;
  const Bounds bounds = window_bounds(options, documents, in.q.size(1), slots);
  IntervalMask mask;
  mask.lo = bounds.lo.to(in.q.device());
  mask.hi = bounds.hi.to(in.q.device());
  if (in.cu_seqlens.defined() && in.cu_seqlens.numel() > 1) {
    mask.cu_seqlens_q = in.cu_seqlens;
    mask.cu_seqlens_k = window_bounds_of_documents(documents, slots);
  }
  return interval_attention(in.q_cmp.defined() ? in.q_cmp : in.q,
                            with_memory(in.k_cmp, in.memory_k, documents),
                            with_memory(in.v_cmp, in.memory_v, documents), mask, options.scale);
}

Selection choose(const NsaInput& in, const NsaOptions& options, bool keep_scores) {
  const int64_t lists = options.shared_selection ? in.k.size(2) : in.q.size(2);
  const BlockScores how{.visible = BlockScores::Visible::complete,
                        .vote = options.vote,
                        .scale = options.scale,
                        .width = options.compress_block,
                        .stride = options.compress_stride,
                        .partial = options.partial_windows};
  const BlockGeometry geometry{.query_block = 1,
                               .key_block = options.block_size,
                               .tokens = in.k.size(1),
                               .offset = in.k.size(1) - in.q.size(1),
                               .cu_seqlens = in.cu_seqlens};
  const SelectionRule rule{
      .top_k = options.num_blocks, .first = options.first_blocks, .latest = options.latest_blocks};
  return select_blocks((in.q_cmp.defined() ? in.q_cmp : in.q).detach(), in.k_cmp.detach(), lists, how,
                       geometry, rule, keep_scores);
}

// The first and the latest blocks up to each query's own, among `blocks` [B, Hl, T, S].
at::Tensor forced_blocks(const at::Tensor& blocks, const NsaOptions& options,
                         const std::vector<PackedDocument>& documents) {
  std::vector<int64_t> own;
  for (const PackedDocument& document : documents)
    for (int64_t row = 0; row < document.queries; ++row)
      own.push_back(document.position(row) / options.block_size);
  const at::Tensor newest = at::tensor(own, at::kLong).to(blocks.device()).view({1, 1, -1, 1});
  return (blocks < options.first_blocks).logical_or(blocks > newest - options.latest_blocks);
}

// Each row's best block_counts of the chosen, by score, forced ones first, equal ones by number; ascending,
// -1 pads. lucidrains' own block, the last of a list, stays.
at::Tensor trimmed(const CountedInput& in, const NsaOptions& options,
                   const std::vector<PackedDocument>& documents, const Selection& selection) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  constexpr int64_t kNone = std::numeric_limits<int32_t>::max();
  const bool lucidrains = options.form == NsaForm::lucidrains;
  const int64_t slots = selection.indices.size(3) - (lucidrains ? 1 : 0);
  const at::Tensor chosen = selection.indices.narrow(3, 0, slots).to(at::kLong);
  at::Tensor scores = selection.scores.gather(3, chosen.clamp_min(0));
  if (!lucidrains) scores = scores.masked_fill(forced_blocks(chosen, options, documents), kInfinity);
  const at::Tensor order = std::get<1>(
      at::sort(scores.masked_fill(chosen < 0, -kInfinity), /*stable=*/true, /*dim=*/-1, /*descending=*/true));
  const at::Tensor ranks = std::get<1>(order.sort(-1));
  const at::Tensor dropped = (ranks >= counts_by_list(in).to(ranks.device())).logical_or(chosen < 0);
  const at::Tensor ascending = std::get<0>(chosen.masked_fill(dropped, kNone).sort(-1));
  const at::Tensor kept = ascending.masked_fill(ascending == kNone, -1).to(at::kInt);
  return lucidrains ? at::cat({kept, selection.indices.narrow(3, slots, 1)}, 3) : kept;
}

at::Tensor selected_branch(const NsaInput& in, const at::Tensor& indices, const NsaOptions& options,
                           const std::vector<PackedDocument>& documents) {
  const int64_t size = options.block_size;
  if (!has_block_tiles(size))
    return attend_small_blocks(Implementation::fused, in, indices, options, documents).o;
  const BlockLists lists{.indices = indices,
                         .query_block = 1,
                         .key_block = size,
                         .cu_seqlens_q = in.cu_seqlens,
                         .cu_seqlens_k = in.cu_seqlens};
  return block_attention(in.q, in.k, in.v, lists, {.scale = options.scale}).o;
}

}  // namespace

Bounds window_bounds(const NsaOptions& options, const std::vector<PackedDocument>& documents, int64_t queries,
                     int64_t extra) {
  const Bounds bounds{bounds_tensor(queries), bounds_tensor(queries)};
  auto *lo = bounds.lo.mutable_data_ptr<int32_t>(), *hi = bounds.hi.mutable_data_ptr<int32_t>();
  int64_t before = 0;
  for (const PackedDocument& document : documents) {
    before += extra;
    for (int64_t row = 0; row < document.queries; ++row) {
      const int64_t first = document.window + before;
      *lo++ = static_cast<int32_t>(first - extra);
      *hi++ =
          static_cast<int32_t>(first + visible_windows(options, document.position(row), document.windows));
    }
  }
  return bounds;
}

bool has_block_tiles(int64_t size) { return size == 16 || size == 32 || size == 64 || size == 128; }

IntervalAttentionOutput attend_small_blocks(Implementation implementation, const NsaInput& in,
                                            const at::Tensor& indices, const NsaOptions& options,
                                            const std::vector<PackedDocument>& documents) {
  const at::Tensor lists = indices.to(at::kCPU).contiguous();
  const int64_t batch = lists.size(0), heads = lists.size(1), queries = lists.size(2), slots = lists.size(3);
  std::vector<IntervalAttentionOutput> parts;
  for (int64_t slot = 0; slot < slots; ++slot) {
    IntervalMask mask;
    mask.lo = at::empty({batch, heads, queries}, at::kInt);
    mask.hi = at::empty({batch, heads, queries}, at::kInt);
    auto *lo = mask.lo.mutable_data_ptr<int32_t>(), *hi = mask.hi.mutable_data_ptr<int32_t>();
    const auto* entry = lists.const_data_ptr<int32_t>() + slot;
    for (int64_t list = 0; list < batch * heads; ++list)
      for (const PackedDocument& document : documents)
        for (int64_t row = 0; row < document.queries; ++row, entry += slots) {
          const int64_t begin = *entry * options.block_size;
          const int64_t end = std::min(begin + options.block_size, document.position(row) + 1);
          const bool empty = *entry < 0 || end <= begin;
          *lo++ = static_cast<int32_t>(empty ? 0 : document.key + begin);
          *hi++ = static_cast<int32_t>(empty ? 0 : document.key + end);
        }
    mask.lo = mask.lo.to(in.q.device());
    mask.hi = mask.hi.to(in.q.device());
    parts.push_back(interval_attention_by(implementation, in.q, in.k, in.v, mask, options.scale));
  }
  return parts.size() == 1 ? parts.front() : merge_attention_by(implementation, parts);
}

Chosen compress_and_choose(const NsaInput& in, const NsaOptions& options,
                           const std::vector<PackedDocument>& documents, bool keep_scores) {
  const IntervalAttentionOutput compressed = compressed_branch(in, options, documents);
  return {compressed.o, compressed.lse,
          options.form == NsaForm::lucidrains ? choose_by_mean_logit(in, options, documents, keep_scores)
                                              : choose(in, options, keep_scores)};
}

namespace {

NsaOutput attend(const CountedInput& in, const NsaOptions& given, bool keep_scores) {
  check_input(in, given);
  const NsaOptions options = with_largest_count(given, in);
  const bool counted = in.block_counts.defined();
  const auto documents = nsa::documents(in, options);
  NsaOutput out;
  const Chosen chosen = compress_and_choose(in, options, documents, keep_scores || counted);
  const Selection& selection = chosen.selection;
  out.o_cmp = chosen.o_cmp;
  out.lse_cmp = chosen.lse_cmp;
  out.block_indices = counted ? trimmed(in, options, documents, selection) : selection.indices;
  if (keep_scores) out.block_scores = selection.scores;
  out.o_slc = selected_branch(in, out.block_indices, options, documents);
  const IntervalMask window{
      .window = options.window, .cu_seqlens_q = in.cu_seqlens, .cu_seqlens_k = in.cu_seqlens};
  out.o_win = interval_attention(in.q, in.k, in.v, window, options.scale).o;
  add_branches(in.gate, out);
  return out;
}

// flash-linear-attention's windows: the blocks.
NsaOptions windows_of_blocks(NsaOptions options) {
  options.compress_block = options.compress_stride = options.block_size;
  return options;
}

NsaInput with_means(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& gate,
                    const NsaOptions& options, const at::Tensor& cu_seqlens) {
  return {.q = q,
          .k = k,
          .v = v,
          .gate = gate,
          .k_cmp = nsa_compress(k, {}, options, cu_seqlens),
          .v_cmp = nsa_compress(v, {}, options, cu_seqlens),
          .cu_seqlens = cu_seqlens};
}

}  // namespace
}  // namespace nsa

NsaOutput nsa_attention(const NsaInput& in, const NsaOptions& options, bool keep_scores) {
  return nsa::attend({in, {}}, options, keep_scores);
}

NsaOutput nsa_attention(const NsaInput& in, const at::Tensor& block_counts, const NsaOptions& options,
                        bool keep_scores) {
  return nsa::attend({in, block_counts}, options, keep_scores);
}

NsaOutput nsa_attention_by(Implementation implementation, const NsaInput& in, const at::Tensor& block_counts,
                           const NsaOptions& options, bool keep_scores) {
  return implementation == Implementation::fused
             ? nsa_attention(in, block_counts, options, keep_scores)
             : nsa_attention_reference(in, block_counts, options, keep_scores);
}

NsaOutput nsa_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& gate,
                        const NsaOptions& options, const at::Tensor& cu_seqlens) {
  const NsaOptions means = nsa::windows_of_blocks(options);
  return nsa_attention(nsa::with_means(q, k, v, gate, means, cu_seqlens), means);
}

NsaOutput nsa_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& gate,
                        const at::Tensor& block_counts, const NsaOptions& options,
                        const at::Tensor& cu_seqlens) {
  const NsaOptions means = nsa::windows_of_blocks(options);
  return nsa_attention(nsa::with_means(q, k, v, gate, means, cu_seqlens), block_counts, means);
}

}  // namespace longreach
