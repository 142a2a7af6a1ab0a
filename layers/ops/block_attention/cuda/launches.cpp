#include "layers/ops/block_attention/cuda/launches.h"

#include "core/error.h"
#include "layers/ops/block_attention/cuda/plan.h"

namespace longreach::block {
namespace {

using namespace cuda::problem;

// Rows of `query_block` queries, each with kListed blocks of keys; one list and one key head for all heads,
// or one a head.
struct BlockProblem {
  PackedDocument document;
  Params params{};
  Gradients gradients{};

  BlockProblem(DType dtype, const HeadDims& dims, int64_t query_block, int64_t key_block, bool shared)
      : document{0, kTokens, 0, kTokens, 0, kTokens / query_block} {
    const auto view = [](int64_t size) {
      return Strided{nowhere(), kTokens * kHeads * size, kHeads * size, size};
    };
    Params& p = params;
    p.dtype = dtype;
    p.batches = 1, p.queries = p.keys = kTokens, p.heads = kHeads;
    p.key_heads = p.value_heads = p.list_heads = shared ? 1 : kHeads;
    p.qk_size = dims.qk, p.v_size = dims.v, p.scale = 1.0f;
    p.q = p.k = view(dims.qk), p.v = p.o = view(dims.v);
    p.causal = true;
    p.query_block = query_block, p.key_block = key_block;
    p.indices = nowhere<const int32_t>();
    p.list_batches = 1, p.rows = document.rows, p.slots = kListed;
    p.documents = &document, p.document_count = 1;
    p.block_max = p.block_sum = nowhere<float>();
    gradients = {p.o, nullptr, p.q, p.k, p.v};
  }
};

cuda::Work block_work(const std::string& kernel, const Params& p) {
  const auto is = [&](const char* name) { return kernel.starts_with(text("block_attention_", name)); };
  const double qk = static_cast<double>(p.qk_size), v = static_cast<double>(p.v_size),
               bytes = bytes_of(p.dtype);
  const double pairs = kHeads * kTokens * static_cast<double>(kListed * p.key_block);
  const double query_rows = kHeads * kTokens, key_rows = static_cast<double>(p.key_heads * kTokens);
  const double lists = static_cast<double>(p.list_heads * p.rows * kListed) * 4;
  const auto work = [&](double products, double queries, double keys, double floats) {
    return cuda::Work{2 * pairs * products,
                      (query_rows * queries + key_rows * keys) * bytes + query_rows * floats * 4 + lists,
                      arithmetic_of(p.dtype)};
  };
  if (is("forward")) return work(qk + v, qk + v, qk + v, 1);
  if (is("query_gradient")) return work(2 * qk + v, 2 * qk + v, qk + v, 2);
  if (is("key_gradient_k_")) return work(2 * qk + v, qk + v, 2 * qk + v, 2);
  if (is("key_gradient_v_")) return work(qk + v, qk + v, qk + v, 2);
  if (is("key_gradient")) return work(2 * qk + 2 * v, qk + v, 2 * (qk + v), 2);
  if (is("statistics")) return work(qk, qk, qk, 1);
  return {};
}

}  // namespace

void add_launches(cuda::NamedLaunches& all) {
  for (const DType dtype : kDtypes)
    for (const HeadDims& dims : built_head_dims(dtype))
      for (const int64_t query_block : {1, 64, 128}) {
        const BlockProblem x(dtype, dims, query_block, query_block == 128 ? 32 : 64, query_block == 1);
        const auto work = [&](const std::string& kernel) { return block_work(kernel, x.params); };
        all.add("blocks", plan_forward(x.params, nullptr).launches, work);
        all.add("blocks", plan_backward(x.params, x.gradients, nullptr).launches, work);
      }
}

}  // namespace longreach::block
