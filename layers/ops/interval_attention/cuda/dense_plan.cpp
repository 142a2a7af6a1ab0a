#include "layers/ops/interval_attention/cuda/dense_plan.h"

#include <cstddef>

#include "core/error.h"
#include "layers/ops/interval_attention/cuda/dense_params.h"

namespace longreach::interval {
namespace {

constexpr int64_t kElementBytes = 2;

const char* dtype_name(const Params& p) { return p.dtype == DType::kBFloat16 ? "bf16" : "fp16"; }

// What TMA can address. Strides along dimensions of one entry are never used.
bool tma_reaches(const Strided& x, int64_t tokens, int64_t heads, int64_t batches) {
  const auto fits = [](int64_t stride, int64_t count) {
    const int64_t bytes = stride * kElementBytes;
    return count == 1 || (bytes > 0 && bytes % 16 == 0 && bytes < int64_t{1} << 40);
  };
  return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && fits(x.token, tokens) && fits(x.head, heads) &&
         fits(x.batch, batches);
}

cuda::TensorMap map_of(const Params& p, const Strided& x, int64_t tokens, int64_t heads, uint32_t rows) {
  const auto stride = [&](int64_t elements, int64_t count) {
    return static_cast<uint64_t>((count == 1 ? p.qk_size : elements) * kElementBytes);
  };
  return {.data = x.data,
          .element_bytes = kElementBytes,
          .rank = 4,
          .size = {static_cast<uint64_t>(p.qk_size), static_cast<uint64_t>(tokens),
                   static_cast<uint64_t>(heads), static_cast<uint64_t>(p.batches)},
          .stride = {stride(x.token, tokens), stride(x.head, heads), stride(x.batch, p.batches)},
          .box = {kDenseColumns, rows, 1, 1},
          .swizzle_bytes = 128};
}

DenseProblem problem_of(const Params& p, int64_t tiled_tokens) {
  return {static_cast<int32_t>(p.batches),
          static_cast<int32_t>(p.queries),
          static_cast<int32_t>(p.keys),
          static_cast<int32_t>(p.heads),
          static_cast<int32_t>(p.key_heads),
          static_cast<int32_t>(p.value_heads),
          static_cast<int32_t>((tiled_tokens + kDenseRows - 1) / kDenseRows),
          p.causal ? 1 : 0,
          p.scale * 1.4426950408889634f};
}

template <class Parameters>
cuda::Launch launch_of(const char* what, const Params& p, int64_t heads, int shared,
                       const Parameters& parameters) {
  const int64_t blocks = parameters.problem.tile_count * heads * p.batches;
  check<ShapeError>(blocks < int64_t{1} << 31, "interval attention: ", blocks,
                    " blocks, expected fewer than 2^31: split the batch");
  return cuda::make_launch(text("interval_attention_dense_", what, '_', dtype_name(p), '_', p.qk_size),
                           {static_cast<uint32_t>(blocks)}, {kDenseThreads}, static_cast<uint32_t>(shared),
                           parameters);
}

}  // namespace

bool takes_dense_forward(const Params& p) {
  const bool built = (p.dtype == DType::kBFloat16 || p.dtype == DType::kFloat16) && p.qk_size == p.v_size &&
                     (p.qk_size == 64 || p.qk_size == 128);
  const bool dense = p.cu_queries == nullptr && p.lo == nullptr && p.window == 0 && p.sinks == 0;
  const bool some = p.batches > 0 && p.heads > 0 && p.queries > 0 && p.keys > 0;
  return built && dense && some && p.scale > 1e-30f && tma_reaches(p.q, p.queries, p.heads, p.batches) &&
         tma_reaches(p.k, p.keys, p.key_heads, p.batches) &&
         tma_reaches(p.v, p.keys, p.value_heads, p.batches) &&
         tma_reaches(p.o, p.queries, p.heads, p.batches);
}

cuda::Launch dense_forward_launch(const Params& p) {
  DenseForward forward{};
  forward.problem = problem_of(p, p.queries);
  forward.lse = p.lse;
  cuda::Launch launch =
      launch_of("forward", p, p.heads, dense_forward_shared(static_cast<int>(p.qk_size)), forward);
  launch.tensor_maps = {{offsetof(DenseForward, q), map_of(p, p.q, p.queries, p.heads, 64)},
                        {offsetof(DenseForward, k), map_of(p, p.k, p.keys, p.key_heads, kDenseKeys)},
                        {offsetof(DenseForward, v), map_of(p, p.v, p.keys, p.value_heads, kDenseKeys)},
                        {offsetof(DenseForward, o), map_of(p, p.o, p.queries, p.heads, 64)}};
  return launch;
}

bool takes_dense_backward(const Params& p, const Gradients& g) {
  constexpr int64_t kMostTerms = int64_t{1} << 30;  // coordinates of TMA have 31 bits, and terms two numbers
  return takes_dense_forward(p) && p.key_heads == p.value_heads &&
         p.batches * p.heads * p.queries <= kMostTerms && tma_reaches(g.d_o, p.queries, p.heads, p.batches) &&
         tma_reaches(g.dq, p.queries, p.heads, p.batches) &&
         tma_reaches(g.dk, p.keys, p.key_heads, p.batches) &&
         tma_reaches(g.dv, p.keys, p.value_heads, p.batches);
}

namespace {

// All terms as one row: a stage's begin anywhere in it.
cuda::TensorMap term_map(const Params& p, const CudaTerms* terms) {
  const auto count = static_cast<uint64_t>(2 * p.batches * p.heads * p.queries);
  return {.data = terms,
          .element_bytes = 4,
          .rank = 2,
          .size = {count, 1},
          .stride = {(count * 4 + 15) / 16 * 16},
          .box = {2 * kDenseKeyGradientColumns, 1},
          .swizzle_bytes = 0};
}

// Maps of q, dO, k and v, with boxes of so many rows.
std::vector<cuda::TensorMapArgument> input_maps(const Params& p, const Gradients& g, uint32_t query_rows,
                                                uint32_t key_rows) {
  return {{offsetof(DenseBackward, q), map_of(p, p.q, p.queries, p.heads, query_rows)},
          {offsetof(DenseBackward, d_o), map_of(p, g.d_o, p.queries, p.heads, query_rows)},
          {offsetof(DenseBackward, k), map_of(p, p.k, p.keys, p.key_heads, key_rows)},
          {offsetof(DenseBackward, v), map_of(p, p.v, p.keys, p.value_heads, key_rows)}};
}

}  // namespace

std::vector<cuda::Launch> dense_backward_launches(const Params& p, const Gradients& g,
                                                  const CudaTerms* terms) {
  const int size = static_cast<int>(p.qk_size);
  DenseBackward backward{};
  backward.scale = p.scale;
  backward.terms = terms;
  backward.problem = problem_of(p, p.queries);
  cuda::Launch queries = launch_of("query_gradient", p, p.heads, dense_query_gradient_shared(size), backward);
  queries.tensor_maps = input_maps(p, g, 64, static_cast<uint32_t>(dense_query_gradient_columns(size)));
  queries.tensor_maps.push_back({offsetof(DenseBackward, dq), map_of(p, g.dq, p.queries, p.heads, 64)});
  backward.problem = problem_of(p, p.keys);
  cuda::Launch keys = launch_of("key_gradient", p, p.key_heads, dense_key_gradient_shared(size), backward);
  keys.tensor_maps = input_maps(p, g, kDenseKeyGradientColumns, 64);
  keys.tensor_maps.push_back({offsetof(DenseBackward, dk), map_of(p, g.dk, p.keys, p.key_heads, 64)});
  keys.tensor_maps.push_back({offsetof(DenseBackward, dv), map_of(p, g.dv, p.keys, p.value_heads, 64)});
  keys.tensor_maps.push_back({offsetof(DenseBackward, term_rows), term_map(p, terms)});
  return {std::move(queries), std::move(keys)};
}

}  // namespace longreach::interval
