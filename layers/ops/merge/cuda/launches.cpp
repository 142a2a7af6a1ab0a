#include "layers/ops/merge/cuda/launches.h"

#include "layers/ops/merge/cuda/plan.h"

namespace longreach::merge_kernels {

using namespace cuda::problem;

void add_launches(cuda::NamedLaunches& all) {
  constexpr int64_t kParts = 16, kSize = 128;
  for (const DType dtype : kDtypes) {
    const Part part{nowhere(),        kTokens * kHeads * kSize, kHeads * kSize, kSize,
                    nowhere<float>(), kHeads * kTokens,         kTokens,        1};
    const std::vector<Part> parts(kParts, part);
    Merge merge{.batch = 1, .tokens = kTokens, .heads = kHeads, .dim = kSize, .dtype = dtype};
    merge.parts = parts.data(), merge.part_count = kParts, merge.result = part;
    const double row = static_cast<double>(kTokens * kHeads) * (kSize * bytes_of(dtype) + 4);
    all.add("merge", plan_forward(merge, nullptr).launches, traffic((kParts + 1) * row));
    all.add("merge", plan_backward({merge, part, parts.data()}, nullptr).launches,
            traffic((2 * kParts + 1) * row));
  }
}

}  // namespace longreach::merge_kernels
