#include "layers/ops/interval_attention/cuda/plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "layers/ops/cuda/attention/builder.h"
#include "layers/ops/interval_attention/cuda/dense_plan.h"
#include "layers/ops/interval_attention/cuda/params.h"

namespace longreach::interval {
namespace {

constexpr std::array<HeadDims, 7> kHalfDims{
    {{32, 32}, {64, 64}, {96, 96}, {128, 128}, {192, 128}, {192, 192}, {256, 256}}};
constexpr std::array<HeadDims, 3> kFloatDims{{{64, 64}, {128, 128}, {256, 256}}};

// Positions, windows and their differences are 32-bit numbers on the device.
void check_sizes(const Params& p) {
  constexpr int64_t kTokens = int64_t{1} << 29, kRows = std::numeric_limits<int32_t>::max();
  check<ShapeError>(p.queries < kTokens && p.keys < kTokens, "q: ", p.queries, " tokens, k: ", p.keys,
                    " tokens, expected fewer than ", kTokens);
  check<ShapeError>(p.batches * p.heads < kRows, "q: ", p.batches, " batch entries of ", p.heads,
                    " heads, expected fewer than ", kRows, " together");
}

std::vector<PackedDocument> documents(const Params& p) {
  if (p.cu_queries == nullptr) return {{0, p.queries, 0, p.keys, 0, p.queries}};
  std::vector<PackedDocument> all;
  for (int64_t i = 0; i < p.documents; ++i) {
    const int64_t query = p.cu_queries[i], key = p.cu_keys[i];
    const int64_t queries = p.cu_queries[i + 1] - query, keys = p.cu_keys[i + 1] - key;
    all.push_back({query, queries, key, keys, query, queries});
  }
  return all;
}

// Launches of interval attention: their tiles, masks and common parameters.
class Builder : public PlanBuilder {
 public:
  Builder(const Params& params, void* workspace)
      : PlanBuilder("interval_attention", params.dtype, params.batches, workspace),
        params_(params),
        documents_(documents(params)) {}

  struct Tiles {
    const CudaTile* data;  // null: one document
    int32_t count;
  };
  // Tiles of `rows` rows: of queries (each counted `group` times), or of keys with `columns` queries a tile.
  Tiles query_tiles(int rows, int64_t group) { return tiles(true, rows, group, 1); }
  Tiles key_tiles(int rows, int columns) { return tiles(false, rows, 1, columns); }

  CudaMask mask() const {
    const Params& p = params_;
    return {p.causal ? 1 : 0,
            p.window < p.queries + p.keys ? static_cast<int32_t>(p.window) : 0,
            static_cast<int32_t>(std::min(p.sinks, p.keys)),
            static_cast<int32_t>(p.mask_batches),
            static_cast<int32_t>(p.mask_heads),
            p.lo,
            p.hi};
  }

  // Query heads that share a key head and a value head.
  int64_t group() const {
    return std::gcd(params_.heads / params_.key_heads, params_.heads / params_.value_heads);
  }

  CudaProblem problem() {
    const Params& p = params_;
    CudaProblem x{};
    x.q = aligned_rows(p.q, p.queries, p.heads, p.qk_size);
    x.k = aligned_rows(p.k, p.keys, p.key_heads, p.qk_size);
    x.v = aligned_rows(p.v, p.keys, p.value_heads, p.v_size);
    x.mask = mask();
    x.batches = static_cast<int32_t>(p.batches);
    x.queries = static_cast<int32_t>(p.queries);
    x.keys = static_cast<int32_t>(p.keys);
    x.heads = static_cast<int32_t>(p.heads);
    x.key_heads = static_cast<int32_t>(p.key_heads);
    x.value_heads = static_cast<int32_t>(p.value_heads);
    x.group = static_cast<int32_t>(group());
    x.scale_log2 = p.scale * 1.4426950408889634f;
    return x;
  }

  // Rows of the document with the most of them.
  int64_t longest_document() const {
    int64_t most = 0;
    for (const PackedDocument& d : documents_) most = std::max(most, d.queries);
    return most;
  }

 private:
  Tiles tiles(bool of_queries, int rows, int64_t group, int columns) {
    std::vector<CudaTile> all;
    int64_t query_tile = 0, count = 0;
    for (const PackedDocument& d : documents_) {
      const int64_t total = of_queries ? d.queries * group : d.keys;
      check<ShapeError>(total < std::numeric_limits<int32_t>::max() - 1024, "q: ", total,
                        " rows in one document, expected fewer than 2^31 - 1024");
      count += ceil_div(total, rows);
      if (params_.cu_queries != nullptr)
        for (int64_t first = 0; first < total; first += rows)
          all.push_back({static_cast<int32_t>(first),
                         static_cast<int32_t>(d.query),
                         static_cast<int32_t>(d.query + d.queries),
                         static_cast<int32_t>(d.key),
                         static_cast<int32_t>(d.key + d.keys),
                         static_cast<int32_t>(query_tile),
                         {}});
      query_tile += ceil_div(d.queries, columns);
    }
    if (params_.cu_queries == nullptr) return {nullptr, static_cast<int32_t>(count)};
    return {table(all), static_cast<int32_t>(all.size())};
  }

  const Params& params_;
  std::vector<PackedDocument> documents_;
};

int decode_splits(const CudaOptions& options, int64_t blocks, int64_t keys, int columns) {
  if (options.splits > 0) return options.splits;
  const int64_t wanted = ceil_div(2 * options.multiprocessors, std::max<int64_t>(blocks, 1));
  return static_cast<int>(std::clamp<int64_t>(std::min(wanted, keys / (4 * columns)), 1, 256));
}

void plan_decode(Builder& builder, const Params& p, const HeadDims& dims, const CudaOptions& options) {
  const int bytes = element_bytes(p.dtype);
  const TileShape shape = decode_shape(bytes, dims.qk, dims.v);
  const auto tiles = builder.query_tiles(shape.rows(), builder.group());
  CudaForward forward{};
  forward.problem = builder.problem();
  forward.problem.tiles = tiles.data;
  forward.problem.tile_count = tiles.count;
  make_scale_positive(forward.problem.scale_log2, forward.problem.negate);
  const int64_t blocks = tiles.count * (p.heads / builder.group()) * p.batches;
  const int64_t rows = p.batches * p.heads * p.queries;
  forward.splits = decode_splits(options, blocks, p.keys, shape.columns);
  forward.o = builder.rows(p.o, p.v_size);
  forward.lse = p.lse;
  CudaMerge merge{};
  if (forward.splits > 1) {
    const int64_t row = (p.v_size + 3) / 4 * 4;
    float* parts = builder.allocate<float>(forward.splits * rows * row);
    float* lse = builder.allocate<float>(forward.splits * rows);
    merge = {parts,
             lse,
             rows * row,
             rows,
             forward.splits,
             static_cast<int32_t>(row),
             static_cast<int32_t>(p.batches),
             static_cast<int32_t>(p.heads),
             static_cast<int32_t>(p.queries),
             forward.o,
             p.lse};
    forward.o = {reinterpret_cast<char*>(parts),
                 p.heads * p.queries * row * 4,
                 row * 4,
                 p.queries * row * 4,
                 static_cast<int32_t>(p.v_size),
                 p.v_size % 4 == 0,
                 1};
    forward.lse = lse;
    forward.split_o = rows * row * 4;
    forward.split_lse = rows;
  }
  builder.launch(kernel_name("decode", p.dtype, dims), blocks * forward.splits, shape.threads(),
                 forward_shared(shape, bytes, dims.qk, dims.v), forward);
  if (forward.splits > 1) builder.launch_rows(text("rows_merge_splits_", dtype_name(p.dtype)), rows, merge);
}

void plan_key_gradients(Builder& builder, const Params& p, const Gradients& g, const HeadDims& dims,
                        CudaBackward backward, const Builder::Tiles& tiles) {
  const int bytes = element_bytes(p.dtype);
  const TileShape shape = key_gradient_shape(bytes, dims.qk, dims.v);
  backward.problem.tiles = tiles.data;
  backward.problem.tile_count = tiles.count;
  const int64_t groups = p.heads / builder.group();
  const HeadParts keys(builder, g.dk, p.keys, groups, p.key_heads, p.qk_size),
      values(builder, g.dv, p.keys, groups, p.value_heads, p.v_size);
  backward.dk = keys.target;
  backward.dv = values.target;
  const int64_t blocks = tiles.count * groups * p.batches;
  const auto launch = [&](const char* name, KeyGradients parts) {
    builder.launch(kernel_name(name, p.dtype, dims), blocks, shape.threads(),
                   key_gradient_shared(shape, parts, bytes, dims.qk, dims.v), backward);
  };
  if (key_gradients_are_split(bytes, dims.qk, dims.v)) {
    launch("key_gradient_k", KeyGradients::kKeys);
    launch("key_gradient_v", KeyGradients::kValues);
  } else {
    launch("key_gradient", KeyGradients::kBoth);
  }
  keys.add_up(builder);
  values.add_up(builder);
}

// Hulls of the tiles of queries under explicit intervals, for the walk of key_gradient.
void plan_hulls(Builder& builder, const Params& p, int columns, const Builder::Tiles& tiles,
                CudaBackward& backward) {
  CudaHulls hulls{};
  hulls.mask = builder.mask();
  hulls.tiles = tiles.data;
  hulls.tile_count = tiles.count;
  hulls.tile_rows = columns;
  hulls.queries = static_cast<int32_t>(p.queries);
  hulls.keys = static_cast<int32_t>(p.keys);
  const int64_t count = p.mask_batches * p.mask_heads * tiles.count;
  hulls.hulls = builder.allocate<CudaHull>(count);
  backward.hulls = hulls.hulls;
  backward.hull_count = tiles.count;
  builder.launch_rows("rows_hulls", count, hulls);
}

CudaTerms* plan_row_terms(Builder& builder, const Params& p, const Gradients& g) {
  return builder.row_terms({p.o, g.d_o, p.lse, g.d_lse, p.heads, p.queries, p.v_size});
}

}  // namespace

std::span<const HeadDims> built_head_dims(DType dtype) {
  if (dtype == DType::kFloat32) return kFloatDims;
  return kHalfDims;
}

std::string built_head_dims_text(DType dtype) { return head_dims_text(built_head_dims(dtype)); }

HeadDims built_head_dims(DType dtype, int64_t qk, int64_t v) {
  return smallest_head_dims(built_head_dims(dtype), dtype, qk, v);
}

cuda::Plan plan_forward(const Params& p, void* workspace, const CudaOptions& options) {
  const HeadDims dims = built_head_dims(p.dtype, p.qk_size, p.v_size);
  check_sizes(p);
  Builder builder(p, workspace);
  const int bytes = element_bytes(p.dtype);
  const bool short_rows =
      builder.longest_document() * builder.group() <= 2 * decode_shape(bytes, dims.qk, dims.v).rows();
  if (options.path == ForwardPath::kDecode || (options.path == ForwardPath::kAuto && short_rows)) {
    plan_decode(builder, p, dims, options);
    return builder.finish();
  }
  if (options.architecture == 90 && takes_dense_forward(p))
    return {.launches = {dense_forward_launch(p)}, .workspace_bytes = 0, .upload = {}};
  const TileShape shape = forward_shape(bytes, dims.qk, dims.v);
  const auto tiles = builder.query_tiles(shape.rows(), 1);
  CudaForward forward{};
  forward.problem = builder.problem();
  forward.problem.tiles = tiles.data;
  forward.problem.tile_count = tiles.count;
  make_scale_positive(forward.problem.scale_log2, forward.problem.negate);
  forward.o = builder.rows(p.o, p.v_size);
  forward.lse = p.lse;
  forward.splits = 1;
  builder.launch(kernel_name("forward", p.dtype, dims), tiles.count * p.heads * p.batches, shape.threads(),
                 forward_shared(shape, bytes, dims.qk, dims.v), forward);
  return builder.finish();
}

cuda::Plan plan_backward(const Params& p, const Gradients& g, void* workspace, const CudaOptions& options) {
  const HeadDims dims = built_head_dims(p.dtype, p.qk_size, p.v_size);
  check_sizes(p);
  Builder builder(p, workspace);
  if (options.architecture == 90 && takes_dense_backward(p, g)) {
    const CudaTerms* terms = plan_row_terms(builder, p, g);
    cuda::Plan plan = builder.finish();
    for (cuda::Launch& launch : dense_backward_launches(p, g, terms))
      plan.launches.push_back(std::move(launch));
    return plan;
  }
  const int bytes = element_bytes(p.dtype);
  const TileShape query_shape = query_gradient_shape(bytes, dims.qk, dims.v),
                  key_shape = key_gradient_shape(bytes, dims.qk, dims.v);
  const auto query_tiles = builder.query_tiles(query_shape.rows(), 1),
             key_tiles = builder.key_tiles(key_shape.rows(), key_shape.columns),
             hull_tiles = builder.query_tiles(key_shape.columns, 1);
  CudaBackward backward{};
  backward.problem = builder.problem();
  backward.d_o = builder.aligned_rows(g.d_o, p.queries, p.heads, p.v_size);
  backward.dq = builder.rows(g.dq, p.qk_size);
  backward.scale = p.scale;
  backward.terms = plan_row_terms(builder, p, g);
  if (p.lo != nullptr) plan_hulls(builder, p, key_shape.columns, hull_tiles, backward);
  backward.problem.tiles = query_tiles.data;
  backward.problem.tile_count = query_tiles.count;
  builder.launch(kernel_name("query_gradient", p.dtype, dims), query_tiles.count * p.heads * p.batches,
                 query_shape.threads(), query_gradient_shared(query_shape, bytes, dims.qk, dims.v), backward);
  plan_key_gradients(builder, p, g, dims, backward, key_tiles);
  return builder.finish();
}

}  // namespace longreach::interval
