#include "layers/ops/interval_attention/cuda_plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "layers/ops/interval_attention/cuda_params.h"
#include "layers/ops/interval_attention/dense_plan.h"

namespace longreach::interval {
namespace {

constexpr std::array<HeadDims, 7> kHalfDims{
    {{32, 32}, {64, 64}, {96, 96}, {128, 128}, {192, 128}, {192, 192}, {256, 256}}};
constexpr std::array<HeadDims, 3> kFloatDims{{{64, 64}, {128, 128}, {256, 256}}};

int element_bytes(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "fp32";
    case DType::kBFloat16:
      return "bf16";
    case DType::kFloat16:
      return "fp16";
  }
  throw DtypeError(text("q: dtype number ", static_cast<int>(dtype),
                        "; CUDA kernels are built for float32, bfloat16 and float16"));
}

// Positions, windows and their differences are 32-bit numbers on the device.
void check_sizes(const Params& p) {
  constexpr int64_t kTokens = int64_t{1} << 29, kRows = std::numeric_limits<int32_t>::max();
  check<ShapeError>(p.queries < kTokens && p.keys < kTokens, "q: ", p.queries, " tokens, k: ", p.keys,
                    " tokens, expected fewer than ", kTokens);
  check<ShapeError>(p.batches * p.heads < kRows, "q: ", p.batches, " batch entries of ", p.heads,
                    " heads, expected fewer than ", kRows, " together");
}

int64_t tiles_of(int64_t rows, int64_t tile_rows) { return (rows + tile_rows - 1) / tile_rows; }

struct Document {
  int32_t q_begin, q_end, k_begin, k_end;
};

std::vector<Document> documents(const Params& p) {
  if (p.cu_queries == nullptr) return {{0, static_cast<int32_t>(p.queries), 0, static_cast<int32_t>(p.keys)}};
  std::vector<Document> all;
  for (int64_t i = 0; i < p.documents; ++i)
    all.push_back({p.cu_queries[i], p.cu_queries[i + 1], p.cu_keys[i], p.cu_keys[i + 1]});
  return all;
}

// Hands out work space and collects launches; with no work space the pointers are offsets from null.
class Builder {
 public:
  Builder(const Params& params, void* workspace)
      : params_(params), workspace_(reinterpret_cast<uintptr_t>(workspace)), documents_(documents(params)) {}

  // Tables come first, before any other part of the work space.
  struct Tiles {
    const CudaTile* data;  // null: one document
    int32_t count;
  };
  // Tiles of `rows` rows: of queries (each counted `group` times), or of keys with `columns` queries a tile.
  Tiles query_tiles(int rows, int64_t group) { return tiles(true, rows, group, 1); }
  Tiles key_tiles(int rows, int columns) { return tiles(false, rows, 1, columns); }

  template <class T>
  T* allocate(int64_t count) {
    const size_t offset = (plan_.workspace_bytes + 255) / 256 * 256;
    plan_.workspace_bytes = offset + static_cast<size_t>(count) * sizeof(T);
    return at<T>(offset);
  }

  template <class Parameters>
  void launch(std::string kernel, int64_t blocks, int threads, int shared, const Parameters& parameters) {
    if (blocks == 0) return;
    check<ShapeError>(blocks <= std::numeric_limits<int32_t>::max(), "interval attention: ", blocks,
                      " blocks, expected fewer than 2^31: split the batch");
    plan_.launches.push_back(
        cuda::make_launch("interval_attention_" + std::move(kernel), {static_cast<uint32_t>(blocks), 1, 1},
                          {static_cast<uint32_t>(threads), 1, 1}, static_cast<uint32_t>(shared), parameters));
  }

  // Rows in memory, as they are.
  CudaRows rows(const Strided& x, int64_t size) const {
    const int64_t bytes = element_bytes(params_.dtype);
    CudaRows r{static_cast<char*>(x.data),
               x.batch * bytes,
               x.token * bytes,
               x.head * bytes,
               static_cast<int32_t>(size),
               0,
               0};
    const uint64_t all = reinterpret_cast<uint64_t>(x.data) | static_cast<uint64_t>(r.batch) |
                         static_cast<uint64_t>(r.token) | static_cast<uint64_t>(r.head) |
                         static_cast<uint64_t>(size * bytes);
    r.aligned = all % 16 == 0;
    return r;
  }

  // Inputs of the attention kernels: rows that start at multiples of 16 bytes, copied where they do not.
  CudaRows aligned_rows(const Strided& x, int64_t tokens, int64_t heads, int64_t size) {
    const int64_t bytes = element_bytes(params_.dtype);
    const CudaRows in = rows(x, size);
    const uint64_t starts = reinterpret_cast<uint64_t>(x.data) | static_cast<uint64_t>(in.batch) |
                            static_cast<uint64_t>(in.token) | static_cast<uint64_t>(in.head);
    if (starts % 16 == 0) return in;
    const int64_t row = (size * bytes + 15) / 16 * 16;
    CudaRows out{allocate<char>(params_.batches * tokens * heads * row),
                 tokens * heads * row,
                 heads * row,
                 row,
                 static_cast<int32_t>(size),
                 row == size * bytes,
                 0};
    const CudaAlign parameters{in, out, static_cast<int32_t>(params_.batches), static_cast<int32_t>(tokens),
                               static_cast<int32_t>(heads)};
    launch_rows(bytes == 4 ? "rows_align_32" : "rows_align_16", params_.batches * tokens * heads, 1,
                parameters);
    return out;
  }

  // fp32 rows [batch, token, head, size], each of whole 16 bytes.
  CudaRows float_rows(int64_t tokens, int64_t heads, int64_t size) {
    const int64_t row = (size + 3) / 4 * 16;
    return {allocate<char>(params_.batches * tokens * heads * row),
            tokens * heads * row,
            heads * row,
            row,
            static_cast<int32_t>(size),
            size % 4 == 0,
            1};
  }

  template <class Parameters>
  void launch_rows(std::string kernel, int64_t rows, int64_t rows_a_warp, const Parameters& parameters) {
    launch(std::move(kernel), tiles_of(rows, rows_a_warp * (kRowThreads / 32)), kRowThreads, 0, parameters);
  }

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
    for (const Document& d : documents_) most = std::max<int64_t>(most, d.q_end - d.q_begin);
    return most;
  }

  CudaPlan finish() { return std::move(plan_); }

 private:
  // By address: without work space this is an offset, not a pointer into anything.
  template <class T>
  T* at(size_t offset) const {
    return reinterpret_cast<T*>(workspace_ + offset);
  }

  Tiles tiles(bool of_queries, int rows, int64_t group, int columns) {
    std::vector<CudaTile> all;
    int64_t query_tile = 0, count = 0;
    for (const Document& d : documents_) {
      const int64_t total = of_queries ? (d.q_end - d.q_begin) * group : d.k_end - d.k_begin;
      check<ShapeError>(total < std::numeric_limits<int32_t>::max() - 1024, "q: ", total,
                        " rows in one document, expected fewer than 2^31 - 1024");
      count += tiles_of(total, rows);
      if (params_.cu_queries != nullptr)
        for (int64_t first = 0; first < total; first += rows)
          all.push_back({static_cast<int32_t>(first),
                         d.q_begin,
                         d.q_end,
                         d.k_begin,
                         d.k_end,
                         static_cast<int32_t>(query_tile),
                         {}});
      query_tile += tiles_of(d.q_end - d.q_begin, columns);
    }
    if (params_.cu_queries == nullptr) return {nullptr, static_cast<int32_t>(count)};
    const auto* bytes = reinterpret_cast<const std::byte*>(all.data());
    const size_t offset = plan_.upload.size();
    plan_.upload.insert(plan_.upload.end(), bytes, bytes + all.size() * sizeof(CudaTile));
    plan_.workspace_bytes = plan_.upload.size();
    return {at<CudaTile>(offset), static_cast<int32_t>(all.size())};
  }

  const Params& params_;
  uintptr_t workspace_;
  std::vector<Document> documents_;
  CudaPlan plan_;
};

std::string kernel_name(const char* what, DType dtype, const HeadDims& dims) {
  return text(what, '_', dtype_name(dtype), '_', dims.qk, '_', dims.v);
}

// The softmax needs a rising function of raw scores: the sign goes into q, and a scale of zero is the smallest that
// leaves masked scores at -inf.
void make_scale_positive(CudaProblem& problem) {
  problem.negate = problem.scale_log2 < 0.0f;
  problem.scale_log2 = std::max(std::abs(problem.scale_log2), std::ldexp(1.0f, -100));
}

int decode_splits(const CudaOptions& options, int64_t blocks, int64_t keys, int columns) {
  if (options.splits > 0) return options.splits;
  const int64_t wanted = tiles_of(2 * options.multiprocessors, std::max<int64_t>(blocks, 1));
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
  make_scale_positive(forward.problem);
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
  if (forward.splits > 1)
    builder.launch_rows(text("rows_merge_splits_", dtype_name(p.dtype)), rows, 1, merge);
}

// Adds the launches for one of dk and dv when it is summed from parts of groups of heads.
struct HeadParts {
  CudaRows target;  // what the attention kernel writes
  CudaSumHeads sum;
  bool needed;

  HeadParts(Builder& builder, const Params& p, const Strided& out, int64_t heads, int64_t size)
      : target(builder.rows(out, size)), sum{}, needed(heads != p.heads / builder.group()) {
    if (!needed) return;
    const int64_t groups = p.heads / builder.group();
    sum.out = target;
    target = builder.float_rows(p.keys, groups, size);
    sum.in = target;
    sum.parts = static_cast<int32_t>(groups / heads);
    sum.batches = static_cast<int32_t>(p.batches);
    sum.tokens = static_cast<int32_t>(p.keys);
    sum.heads = static_cast<int32_t>(heads);
  }

  void add_up(Builder& builder, const Params& p) const {
    if (needed)
      builder.launch_rows(text("rows_sum_heads_", dtype_name(p.dtype)), p.batches * p.keys * sum.heads, 1,
                          sum);
  }
};

void plan_key_gradients(Builder& builder, const Params& p, const Gradients& g, const HeadDims& dims,
                        CudaBackward backward, const Builder::Tiles& tiles) {
  const int bytes = element_bytes(p.dtype);
  const TileShape shape = key_gradient_shape(bytes, dims.qk, dims.v);
  backward.problem.tiles = tiles.data;
  backward.problem.tile_count = tiles.count;
  const HeadParts keys(builder, p, g.dk, p.key_heads, p.qk_size),
      values(builder, p, g.dv, p.value_heads, p.v_size);
  backward.dk = keys.target;
  backward.dv = values.target;
  const int64_t blocks = tiles.count * (p.heads / builder.group()) * p.batches;
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
  keys.add_up(builder, p);
  values.add_up(builder, p);
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
  builder.launch_rows("rows_hulls", count, 1, hulls);
}

// Writes the terms of all queries.
CudaTerms* plan_row_terms(Builder& builder, const Params& p, const Gradients& g) {
  const int64_t rows = p.batches * p.heads * p.queries;
  CudaTerms* terms = builder.allocate<CudaTerms>(rows);
  const CudaRowTerms row_terms{builder.rows(p.o, p.v_size),
                               builder.rows(g.d_o, p.v_size),
                               p.lse,
                               g.d_lse,
                               terms,
                               static_cast<int32_t>(p.batches),
                               static_cast<int32_t>(p.heads),
                               static_cast<int32_t>(p.queries)};
  builder.launch_rows(text("rows_row_terms_", dtype_name(p.dtype)), rows, 4, row_terms);
  return terms;
}

}  // namespace

std::span<const HeadDims> built_head_dims(DType dtype) {
  if (dtype == DType::kFloat32) return kFloatDims;
  return kHalfDims;
}

std::string built_head_dims_text(DType dtype) {
  std::vector<std::string> pairs;
  for (const HeadDims& d : built_head_dims(dtype)) pairs.push_back(text(d.qk, '/', d.v));
  return join(pairs);
}

HeadDims built_head_dims(DType dtype, int64_t qk, int64_t v) {
  const HeadDims* best = nullptr;
  for (const HeadDims& d : built_head_dims(dtype))
    if (qk <= d.qk && v <= d.v && (best == nullptr || d.qk + d.v < best->qk + best->v)) best = &d;
  check<ShapeError>(best != nullptr && qk >= 1 && v >= 1, "q, v: head dimensions ", qk, '/', v,
                    "; CUDA kernels in ", dtype_name(dtype), " are built for ", built_head_dims_text(dtype),
                    " and anything below");
  return *best;
}

CudaPlan plan_forward(const Params& p, void* workspace, const CudaOptions& options) {
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
  make_scale_positive(forward.problem);
  forward.o = builder.rows(p.o, p.v_size);
  forward.lse = p.lse;
  forward.splits = 1;
  builder.launch(kernel_name("forward", p.dtype, dims), tiles.count * p.heads * p.batches, shape.threads(),
                 forward_shared(shape, bytes, dims.qk, dims.v), forward);
  return builder.finish();
}

CudaPlan plan_backward(const Params& p, const Gradients& g, void* workspace, const CudaOptions& options) {
  const HeadDims dims = built_head_dims(p.dtype, p.qk_size, p.v_size);
  check_sizes(p);
  Builder builder(p, workspace);
  if (options.architecture == 90 && takes_dense_backward(p, g)) {
    const CudaTerms* terms = plan_row_terms(builder, p, g);
    CudaPlan plan = builder.finish();
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
