#include "layers/ops/selection/cuda/plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "layers/ops/cuda/attention/builder.h"

namespace longreach::selection {
namespace {

constexpr std::array<int, 2> kHeadDims{64, 128};
// Keys, windows and blocks are 32-bit numbers on the device, and so is the sum of any two.
constexpr int64_t kMost = int64_t{1} << 29, kMostRows = std::numeric_limits<int32_t>::max();

int32_t clamped(int64_t x) { return static_cast<int32_t>(std::min(x, kMost)); }

// A float score is above the threshold exactly when it is above this.
float float_below(double threshold) {
  const auto nearest = static_cast<float>(threshold);
  return static_cast<double>(nearest) > threshold
             ? std::nextafter(nearest, -std::numeric_limits<float>::infinity())
             : nearest;
}

// tile_rows: of select_blocks' tiles. Returns how many tiles a list has.
int64_t fill_rule(PlanBuilder& builder, const RuleParams& p, int64_t tile_rows, CudaRule& rule) {
  std::vector<CudaScope> scopes;
  int64_t tile = 0;
  for (size_t n = 0; n < p.documents.size(); ++n) {
    const PackedDocument& d = p.documents[n];
    check<ShapeError>(d.keys < kMost && d.windows < kMost, "tokens: ", d.keys, " of ", d.windows,
                      " windows, expected fewer than ", kMost);
    scopes.push_back({static_cast<int32_t>(d.row), static_cast<int32_t>(d.rows), static_cast<int32_t>(d.keys),
                      static_cast<int32_t>(d.window), static_cast<int32_t>(d.windows),
                      static_cast<int32_t>(d.blocks(p.key_block)), clamped(p.budgets[n]),
                      static_cast<int32_t>(tile)});
    tile += ceil_div(d.rows, tile_rows);
  }
  check<ShapeError>(p.rows < kMostRows, "q: ", p.rows, " rows, expected fewer than ", kMostRows);
  rule.scopes = scopes.size() == 1 ? nullptr : builder.table(scopes);
  if (scopes.size() == 1) rule.scope = scopes[0];
  rule.scope_count = static_cast<int32_t>(scopes.size());
  rule.rows = static_cast<int32_t>(p.rows);
  rule.query_block = clamped(p.query_block), rule.key_block = clamped(p.key_block);
  rule.offset = static_cast<int32_t>(p.offset);
  rule.causal = p.causal;
  rule.first = clamped(p.first), rule.latest = clamped(p.latest);
  rule.has_mass = p.limits.has_mass, rule.mass = p.limits.mass;
  rule.has_threshold = p.limits.has_threshold;
  rule.threshold = p.limits.has_threshold ? float_below(p.limits.threshold) : 0.0f;
  check<ShapeError>(p.size <= kMostRows, "lists: ", p.size, " entries, expected at most ", kMostRows);
  rule.size = static_cast<int32_t>(p.size);
  rule.indices = p.indices, rule.status = p.status;
  return tile;
}

void check_blocks(int64_t blocks, int64_t most, const std::string& kernels) {
  check<ShapeError>(blocks <= most, "key_block: ", blocks, " blocks a row, ", kernels, " hold at most ", most,
                    "; use larger blocks");
}

int head_dim(DType dtype, int64_t size) {
  const auto* built = std::find_if(kHeadDims.begin(), kHeadDims.end(), [&](int d) { return size <= d; });
  check<ShapeError>(built != kHeadDims.end() && size >= 1, "q: head dimension ", size, "; CUDA kernels in ",
                    dtype_name(dtype),
                    " are built for 64, 128 and anything below: split the heads, or select on the CPU");
  return *built;
}

// Heads that share a list and a key head, in as few products as a tile allows.
void cut_heads(const SelectParams& p, CudaSelect& select) {
  const int64_t group = p.heads / p.lists, shared = std::gcd(group, p.heads / p.key_heads);
  int64_t chunk = std::min<int64_t>(shared, kTileRows);
  while (shared % chunk != 0) --chunk;
  select.chunk = static_cast<int32_t>(chunk);
  select.chunks = static_cast<int32_t>(group / chunk);
}

// As many rows a tile as there are, fill it, and fit the shared memory.
void cut_rows(const SelectParams& p, int bytes, int dim, CudaSelect& select) {
  select.pitch = static_cast<int32_t>(std::max<int64_t>(p.rule.blocks, 1));
  const auto bytes_of = [&](int32_t rows, int32_t pitch) {
    CudaSelect tile = select;
    tile.tile_rows = rows, tile.pitch = pitch;
    return static_cast<int64_t>(select_parts(bytes, dim, tile).end);
  };
  check_blocks(p.rule.blocks, (kSharedBytes - bytes_of(1, 0)) / 4,
               text("CUDA kernels of select_blocks in ", dtype_name(p.dtype), " with head dimension ", dim,
                    " and ", p.heads / p.lists, " heads a list"));
  int64_t longest = 1;
  for (const PackedDocument& d : p.rule.documents) longest = std::max(longest, d.rows);
  int64_t rows = std::min<int64_t>(kTileRows / select.chunk, longest);
  while (bytes_of(static_cast<int32_t>(rows), select.pitch) > kSharedBytes) --rows;
  select.tile_rows = static_cast<int32_t>(rows);
  select.parts = select_parts(bytes, dim, select);
}

CudaTensor tensor_of(const Strided& x, int64_t size, int64_t bytes) {
  const bool whole =
      reinterpret_cast<uintptr_t>(x.data) % (4 * bytes) == 0 && (x.batch | x.token | x.head | size) % 4 == 0;
  return {x.data, x.batch, x.token, x.head, whole ? 1 : 0};
}

cuda::Plan pool_plan(const Pooling& p, const char* kernel, int64_t indices, void* workspace) {
  PlanBuilder builder("selection", p.dtype, p.batches, workspace);
  CudaPool pool{};
  std::vector<CudaSpan> spans;
  for (const PackedDocument* d = p.documents; d != p.documents + p.document_count; ++d)
    spans.push_back({static_cast<int32_t>(d->key), static_cast<int32_t>(d->keys),
                     static_cast<int32_t>(d->window), static_cast<int32_t>(d->windows)});
  check<ShapeError>(p.tokens < kMost && p.windows < kMost, "x: ", p.tokens, " tokens, expected fewer than ",
                    kMost);
  check<ShapeError>(p.pool_count <= kMostPools, "pools: ", p.pool_count, ", CUDA kernels take at most ",
                    kMostPools, ": pool twice");
  pool.spans = spans.size() == 1 ? nullptr : builder.table(spans);
  if (spans.size() == 1) pool.span = spans[0];
  pool.span_count = static_cast<int32_t>(spans.size());
  pool.tokens = static_cast<int32_t>(p.tokens), pool.windows = static_cast<int32_t>(p.windows);
  const int64_t shares = p.heads * ceil_div(p.size, 4);
  check<ShapeError>(shares < kMost, "x: ", p.heads, " heads of ", p.size, ", expected fewer elements than ",
                    4 * kMost);
  pool.heads = static_cast<int32_t>(p.heads), pool.size = static_cast<int32_t>(p.size);
  pool.width = clamped(p.width), pool.stride = clamped(p.stride);
  pool.parts = static_cast<int32_t>(ceil_div(shares, kPoolThreads));
  pool.pool_count = static_cast<int32_t>(p.pool_count), pool.picking = static_cast<int32_t>(p.picking);
  for (int64_t i = 0; i < p.pool_count; ++i) pool.pools |= static_cast<uint32_t>(p.pools[i]) << 2 * i;
  const int64_t bytes = element_bytes(p.dtype);
  pool.x = tensor_of(p.x, p.size, bytes), pool.pooled = tensor_of(p.pooled, p.size, bytes);
  pool.picked = p.picked;
  builder.launch(text(kernel, '_', dtype_name(p.dtype)), p.batches * indices * pool.parts, kPoolThreads, 0,
                 pool);
  return builder.finish();
}

}  // namespace

cuda::Plan plan_choose(const ChooseParams& p, void* workspace) {
  PlanBuilder builder("selection", DType::kFloat32, 1, workspace);
  CudaChoose choose{};
  check_blocks(p.rule.blocks, kSharedBytes / 4, "CUDA kernels of choose_blocks");
  fill_rule(builder, p.rule, 1, choose.rule);
  check<ShapeError>(p.lists < kMostRows, "scores: ", p.lists, " lists, expected fewer than ", kMostRows);
  choose.scores = p.scores;
  choose.lists = static_cast<int32_t>(p.lists), choose.blocks = static_cast<int32_t>(p.rule.blocks);
  choose.pitch = std::max(choose.blocks, 1);
  int warps = kChooseWarps;
  while (warps * choose.pitch * 4 > kSharedBytes) warps /= 2;
  builder.launch("choose", ceil_div(p.lists * p.rule.rows, warps), warps * 32, warps * choose.pitch * 4,
                 choose);
  return builder.finish();
}

cuda::Plan plan_select(const SelectParams& p, void* workspace) {
  check<ShapeError>(p.heads >= 1, "q: no heads, expected at least one");
  const int bytes = element_bytes(p.dtype), dim = head_dim(p.dtype, p.size);
  PlanBuilder builder("selection", p.dtype, p.batches, workspace);
  CudaSelect select{};
  select.width = clamped(p.width), select.stride = clamped(p.stride);
  select.same = p.width == p.rule.key_block && p.stride == p.rule.key_block;
  select.softmax = p.softmax;
  cut_heads(p, select);
  cut_rows(p, bytes, dim, select);
  const int64_t tiles = fill_rule(builder, p.rule, select.tile_rows, select.rule);
  select.q = builder.aligned_rows(p.q, p.rule.rows, p.heads, p.size);
  select.k = builder.aligned_rows(p.k, p.key_count, p.key_heads, p.size);
  select.lists = static_cast<int32_t>(p.lists);
  select.heads = static_cast<int32_t>(p.heads), select.key_heads = static_cast<int32_t>(p.key_heads);
  select.tiles = static_cast<int32_t>(tiles);
  select.largest = p.vote == VoteKind::max;
  select.visible = p.visible;
  select.scale = p.softmax ? p.scale * 1.4426950408889634f : p.scale;
  const int64_t group = p.heads / p.lists;
  select.share = p.vote == VoteKind::mean ? 1.0f / static_cast<float>(group) : 1.0f;
  select.scores = p.scores;
  select.blocks = static_cast<int32_t>(p.rule.blocks);
  builder.launch(text("select_", dtype_name(p.dtype), '_', dim), tiles * p.lists * p.batches, kSelectThreads,
                 select.parts.end, select);
  return builder.finish();
}

cuda::Plan plan_pool(const Pooling& p, void* workspace) { return pool_plan(p, "pool", p.windows, workspace); }

cuda::Plan plan_pool_backward(const Pooling& p, void* workspace) {
  return pool_plan(p, "pool_gradient", p.tokens, workspace);
}

}  // namespace longreach::selection
