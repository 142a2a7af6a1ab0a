#include "layers/ops/interval_attention/cuda/launches.h"

#include "core/error.h"
#include "layers/ops/interval_attention/cuda/plan.h"

namespace longreach::interval {
namespace {

using namespace cuda::problem;

Params attention(DType dtype, const HeadDims& dims, int64_t queries) {
  Params p{};
  p.dtype = dtype;
  p.batches = 1, p.queries = queries, p.keys = kTokens;
  p.heads = p.key_heads = p.value_heads = kHeads;
  p.qk_size = dims.qk, p.v_size = dims.v;
  p.scale = 1.0f;
  p.causal = true;
  p.documents = 1;
  const auto rows = [](int64_t tokens, int64_t size) {
    return Strided{nowhere(), tokens * kHeads * size, kHeads * size, size};
  };
  p.q = rows(queries, dims.qk), p.k = rows(kTokens, dims.qk), p.v = rows(kTokens, dims.v);
  p.o = rows(queries, dims.v);
  return p;
}

Gradients gradients(const Params& p) { return {p.o, nullptr, p.q, p.k, p.v}; }

cuda::Work attention_work(const std::string& kernel, DType dtype, const HeadDims& dims, int64_t queries) {
  const auto is = [&](const char* name) {
    return kernel.starts_with(text("interval_attention_", name)) ||
           kernel.starts_with(text("interval_attention_dense_", name));
  };
  const double pairs = queries == 1 ? kHeads * kTokens : kHeads * 0.5 * kTokens * kTokens;
  const double qk = dims.qk, v = dims.v, bytes = bytes_of(dtype);
  const double query_rows = static_cast<double>(kHeads * queries), key_rows = kHeads * kTokens;
  const double inputs = query_rows * qk + key_rows * (qk + v);  // elements of q, k, v
  const auto work = [&](double products, double elements, double floats) {
    return cuda::Work{2 * pairs * products, elements * bytes + query_rows * floats * 4, arithmetic_of(dtype)};
  };
  if (is("forward") || is("decode")) return work(qk + v, inputs + query_rows * v, 1);
  if (is("query_gradient")) return work(2 * qk + v, inputs + query_rows * (v + qk), 2);
  if (is("key_gradient_k")) return work(2 * qk + v, inputs + query_rows * v + key_rows * qk, 2);
  if (is("key_gradient_v")) return work(qk + v, query_rows * (qk + v) + key_rows * (qk + v), 2);
  if (is("key_gradient")) return work(2 * qk + 2 * v, inputs + query_rows * v + key_rows * (qk + v), 2);
  if (kernel.starts_with("attention_rows_row_terms")) return work(0, 2 * query_rows * v, 3);
  return {};
}

}  // namespace

void add_launches(cuda::NamedLaunches& all) {
  for (const DType dtype : kDtypes) {
    for (const HeadDims& dims : built_head_dims(dtype)) {
      const Params full = attention(dtype, dims, kTokens), one = attention(dtype, dims, 1);
      const auto work_of = [&](int64_t queries) {
        return
            [&, queries](const std::string& kernel) { return attention_work(kernel, dtype, dims, queries); };
      };
      all.add("attention", plan_forward(full, nullptr, {.path = ForwardPath::kTiles}).launches,
              work_of(kTokens));
      all.add("attention", plan_backward(full, gradients(full), nullptr).launches, work_of(kTokens));
      all.add("decode", plan_forward(one, nullptr, {.path = ForwardPath::kDecode}).launches, work_of(1));
    }
    for (const HeadDims& dims : {HeadDims{64, 64}, HeadDims{128, 128}}) {
      const Params full = attention(dtype, dims, kTokens);
      const auto work = [&](const std::string& kernel) {
        return attention_work(kernel, dtype, dims, kTokens);
      };
      all.add("sm_90", plan_forward(full, nullptr, {.architecture = 90}).launches, work);
      all.add("sm_90", plan_backward(full, gradients(full), nullptr, {.architecture = 90}).launches, work);
    }
    const auto uncounted = [](const std::string&) { return cuda::Work{}; };
    Params shared = attention(dtype, {64, 64}, kTokens);
    shared.key_heads = 8;
    shared.lo = shared.hi = nowhere<const int32_t>();
    shared.mask_batches = shared.mask_heads = 1;
    all.add("shared", plan_backward(shared, gradients(shared), nullptr).launches, uncounted);
    Params misaligned = attention(dtype, {64, 64}, kTokens);
    misaligned.q.token += 1;
    all.add("misaligned", plan_forward(misaligned, nullptr).launches, uncounted);
  }
}

}  // namespace longreach::interval
