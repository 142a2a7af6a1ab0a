#include "layers/ops/cuda/attention/builder.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace longreach::cuda::attention {

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

std::string kernel_name(const std::string& what, DType dtype, const HeadDims& dims) {
  return text(what, '_', dtype_name(dtype), '_', dims.qk, '_', dims.v);
}

std::string head_dims_text(std::span<const HeadDims> built) {
  std::vector<std::string> pairs;
  for (const HeadDims& d : built) pairs.push_back(text(d.qk, '/', d.v));
  return join(pairs);
}

HeadDims smallest_head_dims(std::span<const HeadDims> built, DType dtype, int64_t qk, int64_t v) {
  const HeadDims* best = nullptr;
  for (const HeadDims& d : built)
    if (qk <= d.qk && v <= d.v && (best == nullptr || d.qk + d.v < best->qk + best->v)) best = &d;
  check<ShapeError>(best != nullptr && qk >= 1 && v >= 1, "q, v: head dimensions ", qk, '/', v,
                    "; CUDA kernels in ", dtype_name(dtype), " are built for ", head_dims_text(built),
                    " and anything below");
  return *best;
}

void make_scale_positive(float& scale_log2, int32_t& negate) {
  negate = scale_log2 < 0.0f;
  scale_log2 = std::max(std::abs(scale_log2), std::ldexp(1.0f, -100));
}

void PlanBuilder::check_blocks(const std::string& kernel, int64_t blocks) {
  check<ShapeError>(blocks <= std::numeric_limits<int32_t>::max(), kernel, ": ", blocks,
                    " blocks, expected fewer than 2^31: split the batch");
}

CudaRows PlanBuilder::rows(const Strided& x, int64_t size) const {
  const int64_t bytes = element_bytes(dtype_);
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

CudaRows PlanBuilder::aligned_rows(const Strided& x, int64_t tokens, int64_t heads, int64_t size) {
  const int64_t bytes = element_bytes(dtype_);
  const CudaRows in = rows(x, size);
  const uint64_t starts = reinterpret_cast<uint64_t>(x.data) | static_cast<uint64_t>(in.batch) |
                          static_cast<uint64_t>(in.token) | static_cast<uint64_t>(in.head);
  if (starts % 16 == 0) return in;
  const int64_t row = (size * bytes + 15) / 16 * 16;
  CudaRows out{allocate<char>(batches_ * tokens * heads * row),
               tokens * heads * row,
               heads * row,
               row,
               static_cast<int32_t>(size),
               row == size * bytes,
               0};
  const CudaAlign parameters{in, out, static_cast<int32_t>(batches_), static_cast<int32_t>(tokens),
                             static_cast<int32_t>(heads)};
  launch_shared_rows(bytes == 4 ? "align_32" : "align_16", batches_ * tokens * heads, 1, parameters);
  return out;
}

CudaRows PlanBuilder::float_rows(int64_t tokens, int64_t heads, int64_t size) {
  const int64_t row = (size + 3) / 4 * 16;
  return {allocate<char>(batches_ * tokens * heads * row),
          tokens * heads * row,
          heads * row,
          row,
          static_cast<int32_t>(size),
          size % 4 == 0,
          1};
}

CudaTerms* PlanBuilder::row_terms(const RowTermsInput& input) {
  const int64_t count = batches_ * input.heads * input.queries;
  CudaTerms* terms = allocate<CudaTerms>(count);
  const CudaRowTerms parameters{rows(input.o, input.v_size),
                                rows(input.d_o, input.v_size),
                                input.lse,
                                input.d_lse,
                                terms,
                                static_cast<int32_t>(batches_),
                                static_cast<int32_t>(input.heads),
                                static_cast<int32_t>(input.queries)};
  launch_shared_rows(text("row_terms_", dtype_name(dtype_)), count, 4, parameters);
  return terms;
}

HeadParts::HeadParts(PlanBuilder& builder, const Strided& out, int64_t keys, int64_t groups, int64_t heads,
                     int64_t size)
    : target(builder.rows(out, size)), sum_{}, needed_(heads != groups) {
  if (!needed_) return;
  sum_.out = target;
  target = builder.float_rows(keys, groups, size);
  sum_.in = target;
  sum_.parts = static_cast<int32_t>(groups / heads);
  sum_.batches = static_cast<int32_t>(builder.batches());
  sum_.tokens = static_cast<int32_t>(keys);
  sum_.heads = static_cast<int32_t>(heads);
}

void HeadParts::add_up(PlanBuilder& builder) const {
  if (needed_)
    builder.launch_shared_rows(text("sum_heads_", dtype_name(builder.dtype())),
                               static_cast<int64_t>(sum_.batches) * sum_.tokens * sum_.heads, 1, sum_);
}

}  // namespace longreach::cuda::attention
