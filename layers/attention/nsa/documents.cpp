// Checks of what the branches share, and the arithmetic of windows.
#include "layers/attention/nsa/documents.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <limits>

#include "layers/ops/common/check.h"
#include "layers/ops/common/packed_documents.h"

namespace longreach {

PoolWindows nsa_windows(const NsaOptions& options, const at::Tensor& cu_seqlens) {
  // lucidrains' windows end where those of width = stride end, and begin before them.
  const int64_t width =
      options.form == NsaForm::lucidrains ? options.compress_stride : options.compress_block;
  return {width, options.compress_stride, options.partial_windows, cu_seqlens};
}

namespace nsa {
namespace {

void check_counts(const at::Tensor& counts, at::IntArrayRef shape) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  expect_dtype(counts, "block_counts", {at::kInt, at::kLong});
  expect_shape(counts, "block_counts", shape);
  if (counts.numel() == 0) return;
  for (const int64_t count : {counts.min().item<int64_t>(), counts.max().item<int64_t>()})
    check<ShapeError>(count >= 0 && count <= kMost, "block_counts: ", count, ", expected 0 to ", kMost,
                      " blocks");
}

}  // namespace

void check_input(const CountedInput& in, const NsaOptions& options) {
  check<ConfigError>(options.compress_stride >= 1 && options.compress_stride <= options.compress_block,
                     "compress_stride: ", options.compress_stride,
                     ", expected 1 to compress_block = ", options.compress_block);
  check<ConfigError>(options.block_size >= 1 && options.num_blocks >= 1 && options.window >= 1,
                     "block_size, num_blocks, window: ", options.block_size, ", ", options.num_blocks,
                     " and ", options.window, ", expected 1 or more");
  check<ConfigError>(options.form == NsaForm::paper || options.block_size % options.compress_stride == 0,
                     "compress_stride: ", options.compress_stride,
                     ", expected a divisor of block_size = ", options.block_size);
  expect_attention_inputs(in.q, in.k, in.v);
  const int64_t batch = in.q.size(0), queries = in.q.size(1), heads = in.q.size(2), keys = in.k.size(1);
  expect_shape(in.v, "v", {-1, -1, in.k.size(2), -1});
  expect_packed(in.cu_seqlens, in.cu_seqlens, batch, queries, keys);
  check<ShapeError>(queries <= keys, "q: ", queries, " tokens, expected at most the ", keys, " of k");
  const int64_t windows = window_count(nsa_windows(options, in.cu_seqlens), keys);
  expect_shape(in.k_cmp, "k_cmp", {batch, windows, in.k.size(2), in.q.size(3)});
  expect_shape(in.v_cmp, "v_cmp", {batch, windows, in.k.size(2), in.v.size(3)});
  if (in.q_cmp.defined()) expect_shape(in.q_cmp, "q_cmp", in.q.sizes());
  if (in.memory_k.defined()) {
    expect_shape(in.memory_k, "memory_k", {in.k.size(2), -1, in.q.size(3)});
    expect_shape(in.memory_v, "memory_v", {in.k.size(2), in.memory_k.size(1), in.v.size(3)});
  }
  if (in.block_counts.defined())
    check_counts(in.block_counts, {batch, queries, options.shared_selection ? in.k.size(2) : heads});
  if (!in.gate.defined()) return;
  const bool shared = in.gate.dim() == 4 && in.gate.size(2) == 1;
  expect_shape(in.gate, "gate", {batch, queries, shared ? 1 : heads, 3});
}

std::vector<PackedDocument> documents(const NsaInput& in, const NsaOptions& options) {
  auto all = packed_documents(in.cu_seqlens, in.cu_seqlens, in.q.size(1), in.k.size(1), 1);
  if (all.empty()) all.emplace_back();
  place_windows(all, nsa_windows(options, in.cu_seqlens));
  return all;
}

at::Tensor counts_by_list(const CountedInput& in) {
  return in.block_counts.to(at::kLong).transpose(1, 2).unsqueeze(-1);
}

NsaOptions with_largest_count(NsaOptions options, const CountedInput& in) {
  if (!in.block_counts.defined()) return options;
  const int64_t largest = in.block_counts.numel() == 0 ? 0 : in.block_counts.max().item<int64_t>(),
                blocks = ceil_div(in.k.size(1), options.block_size);  // no document has more
  options.num_blocks = std::max<int64_t>(std::min(largest, blocks), 1);
  // Room for the forced ones: they are chosen first, and cut off after like the others.
  if (options.form == NsaForm::paper)
    options.num_blocks = std::max(options.num_blocks, options.first_blocks + options.latest_blocks);
  return options;
}

int64_t visible_windows(const NsaOptions& options, int64_t position, int64_t windows) {
  const int64_t block = options.compress_block, stride = options.compress_stride;
  if (options.form == NsaForm::lucidrains) return std::min(position / stride, windows);
  return position + 1 < block ? 0 : std::min((position + 1 - block) / stride + 1, windows);
}

void add_branches(const at::Tensor& gate, NsaOutput& out) {
  if (!gate.defined()) {
    out.o = out.o_cmp + out.o_slc + out.o_win;
    return;
  }
  const at::Tensor weights = gate.to(out.o_cmp.scalar_type());
  const auto weighted = [&](const at::Tensor& branch, int64_t i) {
    return branch * weights.select(-1, i).unsqueeze(-1);
  };
  out.o = weighted(out.o_cmp, 0) + weighted(out.o_slc, 1) + weighted(out.o_win, 2);
}

}  // namespace nsa
}  // namespace longreach
