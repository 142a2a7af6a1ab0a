#include "layers/ops/block_attention/cuda/plan.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "layers/ops/block_attention/cuda/params.h"
#include "layers/ops/cuda/attention/builder.h"

namespace longreach::block {
namespace {

constexpr std::array<HeadDims, 3> kHeadDims{{{64, 64}, {128, 128}, {192, 128}}};

// Tokens, rows of tiles and their sums are 32-bit numbers on the device.
void check_sizes(const Params& p) {
  constexpr int64_t kTokens = int64_t{1} << 29, kRows = std::numeric_limits<int32_t>::max();
  check<ShapeError>(p.queries < kTokens && p.keys < kTokens, "q: ", p.queries, " tokens, k: ", p.keys,
                    " tokens, expected fewer than ", kTokens);
  check<ShapeError>(p.batches * p.heads < kRows, "q: ", p.batches, " batch entries of ", p.heads,
                    " heads, expected fewer than ", kRows, " together");
  check<ShapeError>((p.queries + p.query_block) * p.heads < kRows, "q: ", p.queries, " tokens of ", p.heads,
                    " heads, expected fewer than ", kRows, " together");
  check<ShapeError>(p.rows * p.slots < kRows, "indices: ", p.rows, " rows of ", p.slots,
                    " entries, expected fewer than ", kRows, " together");
}

// Query heads with one key head and one value head.
int64_t pair_group(const Params& p) { return std::gcd(p.heads / p.key_heads, p.heads / p.value_heads); }

CudaLists lists_of(PlanBuilder& builder, const Params& p) {
  std::vector<CudaDocument> documents;
  int64_t block = 0;
  for (int64_t i = 0; i < p.document_count; ++i) {
    const PackedDocument& d = p.documents[i];
    documents.push_back({static_cast<int32_t>(d.query),
                         static_cast<int32_t>(d.query + d.queries),
                         static_cast<int32_t>(d.key),
                         static_cast<int32_t>(d.key + d.keys),
                         static_cast<int32_t>(d.row),
                         static_cast<int32_t>(block),
                         {}});
    block += d.blocks(p.key_block);
  }
  CudaLists lists{};
  lists.indices = p.indices;
  lists.batches = static_cast<int32_t>(p.list_batches);
  lists.heads = static_cast<int32_t>(p.list_heads);
  lists.rows = static_cast<int32_t>(p.rows);
  lists.entries = static_cast<int32_t>(p.slots);
  lists.query_block = static_cast<int32_t>(p.query_block);
  lists.key_block = static_cast<int32_t>(p.key_block);
  lists.causal = p.causal ? 1 : 0;
  lists.blocks = static_cast<int32_t>(block);
  lists.documents = documents.size() == 1 ? nullptr : builder.table(documents);
  lists.document_count = static_cast<int32_t>(documents.size());
  lists.queries = static_cast<int32_t>(p.queries);
  lists.keys = static_cast<int32_t>(p.keys);
  return lists;
}

CudaProblem problem_of(PlanBuilder& builder, const Params& p) {
  CudaProblem x{};
  x.lists = lists_of(builder, p);
  x.q = builder.aligned_rows(p.q, p.queries, p.heads, p.qk_size);
  x.k = builder.aligned_rows(p.k, p.keys, p.key_heads, p.qk_size);
  x.v = builder.aligned_rows(p.v, p.keys, p.value_heads, p.v_size);
  x.heads = static_cast<int32_t>(p.heads);
  x.key_heads = static_cast<int32_t>(p.key_heads);
  x.value_heads = static_cast<int32_t>(p.value_heads);
  x.group = static_cast<int32_t>(std::gcd(pair_group(p), p.heads / p.list_heads));
  x.scale_log2 = p.scale * 1.4426950408889634f;
  return x;
}

// Queries times heads of one row of the lists, as far as it can have them.
int64_t tile_rows_wanted(const Params& p, int64_t group) {
  return std::min(p.query_block, p.queries) * group;
}

// Cuts rows of the lists into tiles; returns the blocks of a launch.
int64_t cut(const Params& p, int rows, CudaProblem& problem) {
  problem.row_tiles =
      static_cast<int32_t>(std::max<int64_t>(ceil_div(tile_rows_wanted(p, problem.group), rows), 1));
  return p.rows * problem.row_tiles * (p.heads / problem.group) * p.batches;
}

// The built tile of the forward pass for so many rows.
int forward_tile(DType dtype, const HeadDims& dims, int64_t wanted) {
  if (wanted <= 16) return 16;
  return wanted <= 64 || !has_large_forward(element_bytes(dtype), dims.qk) ? 64 : 128;
}

void plan_statistics(PlanBuilder& builder, const Params& p, const HeadDims& dims, CudaProblem problem) {
  CudaStatistics statistics{};
  statistics.owners = static_cast<int32_t>(p.per_list ? p.list_heads : p.heads);
  statistics.owner_heads = static_cast<int32_t>(p.heads / statistics.owners);
  problem.group = std::gcd(problem.group, statistics.owner_heads);
  statistics.problem = problem;
  statistics.lse = p.lse;
  statistics.block_max = p.block_max;
  statistics.block_sum = p.block_sum;
  const int bytes = element_bytes(p.dtype);
  const TileShape shape = statistics_shape(bytes, dims.qk);
  builder.launch(text("statistics_", dtype_name(p.dtype), '_', dims.qk),
                 p.rows * statistics.owners * p.batches, shape.threads(),
                 statistics_bytes(shape, bytes, dims.qk), statistics);
}

void plan_transpose(PlanBuilder& builder, const Params& p, CudaBackward& backward) {
  constexpr int64_t kMostChunks = 256, kLeastRows = 32;
  CudaTranspose transpose{};
  transpose.lists = backward.problem.lists;
  const int64_t lists = p.list_batches * p.list_heads, blocks = transpose.lists.blocks;
  transpose.chunk_rows = static_cast<int32_t>(std::max(kLeastRows, ceil_div(p.rows, kMostChunks)));
  transpose.chunks = static_cast<int32_t>(ceil_div(p.rows, transpose.chunk_rows));
  transpose.counts = builder.allocate<int32_t>(lists * transpose.chunks * blocks);
  transpose.starts = builder.allocate<int32_t>(lists * (blocks + 1));
  transpose.rows = builder.allocate<int32_t>(lists * p.rows * p.slots);
  backward.starts = transpose.starts;
  backward.rows = transpose.rows;
  const int64_t warps = ceil_div(lists * transpose.chunks, kTransposeThreads / 32);
  builder.launch("transpose_count", warps, kTransposeThreads, 0, transpose);
  builder.launch("transpose_scan", lists, kScanThreads, 0, transpose);
  builder.launch("transpose_fill", warps, kTransposeThreads, 0, transpose);
}

void plan_key_gradients(PlanBuilder& builder, const Params& p, const Gradients& g, const HeadDims& dims,
                        CudaBackward backward) {
  if (backward.problem.lists.blocks == 0) return;
  const int bytes = element_bytes(p.dtype);
  const int rows = bytes == 4 || p.key_block <= 32 ? 32 : 64;
  const TileShape shape = key_gradient_shape(rows, bytes, dims.qk, dims.v);
  backward.pair_group = static_cast<int32_t>(pair_group(p));
  backward.block_tiles = static_cast<int32_t>(ceil_div(p.key_block, rows));
  const int64_t groups = p.heads / backward.pair_group;
  const HeadParts keys(builder, g.dk, p.keys, groups, p.key_heads, p.qk_size),
      values(builder, g.dv, p.keys, groups, p.value_heads, p.v_size);
  backward.dk = keys.target;
  backward.dv = values.target;
  plan_transpose(builder, p, backward);
  const int64_t blocks =
      static_cast<int64_t>(backward.problem.lists.blocks) * backward.block_tiles * groups * p.batches;
  const auto launch = [&](const char* name) {
    builder.launch(kernel_name(text(name, rows), p.dtype, dims), blocks, shape.threads(),
                   key_gradient_bytes(shape, bytes, dims.qk, dims.v), backward);
  };
  if (key_gradients_are_split(bytes, dims.qk, dims.v)) {
    launch("key_gradient_k_");
    launch("key_gradient_v_");
  } else {
    launch("key_gradient_");
  }
  keys.add_up(builder);
  values.add_up(builder);
}

}  // namespace

std::span<const HeadDims> built_head_dims(DType) { return kHeadDims; }

cuda::Plan plan_forward(const Params& p, void* workspace) {
  const HeadDims dims = smallest_head_dims(kHeadDims, p.dtype, p.qk_size, p.v_size);
  check_sizes(p);
  PlanBuilder builder("block_attention", p.dtype, p.batches, workspace);
  const int bytes = element_bytes(p.dtype);
  CudaForward forward{};
  forward.problem = problem_of(builder, p);
  const CudaProblem problem = forward.problem;
  const int rows = forward_tile(p.dtype, dims, tile_rows_wanted(p, problem.group));
  const TileShape shape = forward_shape(rows, bytes, dims.qk, dims.v);
  const int64_t blocks = cut(p, shape.rows(), forward.problem);
  make_scale_positive(forward.problem.scale_log2, forward.problem.negate);
  forward.o = builder.rows(p.o, p.v_size);
  forward.lse = p.lse;
  builder.launch(kernel_name(text("forward_", rows), p.dtype, dims), blocks, shape.threads(),
                 forward_bytes(shape, bytes, dims.qk, dims.v), forward);
  if (p.block_max != nullptr) plan_statistics(builder, p, dims, problem);
  return builder.finish();
}

cuda::Plan plan_backward(const Params& p, const Gradients& g, void* workspace) {
  const HeadDims dims = smallest_head_dims(kHeadDims, p.dtype, p.qk_size, p.v_size);
  check_sizes(p);
  PlanBuilder builder("block_attention", p.dtype, p.batches, workspace);
  const int bytes = element_bytes(p.dtype);
  CudaBackward backward{};
  backward.problem = problem_of(builder, p);
  backward.d_o = builder.aligned_rows(g.d_o, p.queries, p.heads, p.v_size);
  backward.dq = builder.rows(g.dq, p.qk_size);
  backward.scale = p.scale;
  backward.terms = builder.row_terms({p.o, g.d_o, p.lse, g.d_lse, p.heads, p.queries, p.v_size});
  const bool small =
      tile_rows_wanted(p, backward.problem.group) <= 16 && has_small_query_gradient(bytes, dims.qk, dims.v);
  const int rows = small ? 16 : 64;
  const TileShape shape = query_gradient_shape(rows, bytes, dims.qk, dims.v);
  const int64_t blocks = cut(p, shape.rows(), backward.problem);
  builder.launch(kernel_name(text("query_gradient_", rows), p.dtype, dims), blocks, shape.threads(),
                 query_gradient_bytes(shape, bytes, dims.qk, dims.v), backward);
  plan_key_gradients(builder, p, g, dims, backward);
  return builder.finish();
}

}  // namespace longreach::block
