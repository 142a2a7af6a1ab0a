#include "layers/ops/merge/cuda/plan.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "layers/ops/cuda/attention/builder.h"
#include "layers/ops/merge/cuda/params.h"

namespace longreach::merge_kernels {
namespace {

using namespace cuda::attention;

std::vector<Part> list(const Part* parts, int64_t count) { return {parts, parts + count}; }

int32_t narrow(int64_t x, const char* name) {
  check<ShapeError>(x < std::numeric_limits<int32_t>::max() - kJoinThreads, "merge_attention: ", x, " ", name,
                    ", expected a number of 32 bits");
  return static_cast<int32_t>(x);
}

// Whether 4 elements can be read at once from every multiple of 4 of every row.
bool has_quads(const Merge& p, const std::vector<Part>& all) {
  const auto bytes = static_cast<uintptr_t>(4 * element_bytes(p.dtype));
  return std::all_of(all.begin(), all.end(), [&](const Part& part) {
    return reinterpret_cast<uintptr_t>(part.o) % bytes == 0 &&
           (part.o_batch | part.o_token | part.o_head) % 4 == 0;
  });
}

CudaMerge merge(const Merge& p, const Part* parts, bool quads) {
  return {.parts = parts,
          .result = p.result,
          .rows = p.batch * p.heads * p.tokens,
          .heads = p.heads,
          .tokens = p.tokens,
          .part_count = narrow(p.part_count, "parts"),
          .dim = narrow(p.dim, "elements a row"),
          .quads = quads ? 1 : 0};
}

template <class Parameters>
cuda::Plan launch(PlanBuilder& builder, const std::string& kernel, int64_t rows,
                  const Parameters& parameters) {
  builder.launch(kernel + dtype_name(builder.dtype()), ceil_div(rows, kJoinRows), kJoinThreads, 0,
                 parameters);
  return builder.finish();
}

}  // namespace

cuda::Plan plan_forward(const Merge& p, void* workspace) {
  PlanBuilder builder("merge", p.dtype, p.batch, workspace);
  std::vector<Part> all = list(p.parts, p.part_count);
  const Part* parts = builder.table(all);
  all.push_back(p.result);
  const CudaMerge params = merge(p, parts, has_quads(p, all));
  return launch(builder, "join_", params.rows, params);
}

cuda::Plan plan_backward(const MergeBackward& p, void* workspace) {
  const Merge& f = p.forward;
  PlanBuilder builder("merge", f.dtype, f.batch, workspace);
  std::vector<Part> all = list(f.parts, f.part_count);
  const std::vector<Part> results = list(p.grads, f.part_count);
  const Part *parts = builder.table(all), *grads = builder.table(results);
  all.insert(all.end(), results.begin(), results.end());
  all.push_back(p.grad);
  const CudaMergeGradient params{merge(f, parts, has_quads(f, all)), p.grad, grads};
  return launch(builder, "join_gradient_", params.forward.rows, params);
}

}  // namespace longreach::merge_kernels
