#include "layers/ops/rows/cuda/launches.h"

#include "layers/ops/rows/cuda/plan.h"

namespace longreach::cuda {
namespace {

using namespace problem;

constexpr int64_t kColumns = 4096, kLogits = 32768;

void add_norms(NamedLaunches& all) {
  const Matrix rows{nowhere(), kColumns};
  const double elements = static_cast<double>(kTokens * kColumns);
  for (const DType x : kDtypes)
    for (const DType y : kDtypes) {
      if (x != y && x != DType::kFloat32) continue;
      RmsNorm norm{.rows = kTokens, .columns = kColumns, .x_dtype = x, .y_dtype = y, .x = rows, .y = rows};
      norm.weight = norm.rstd = nowhere<float>();
      all.add("rows", plan_rms_norm(norm), traffic(elements * (bytes_of(x) + bytes_of(y))));
      RmsNormGrad grad{.rows = kTokens, .columns = kColumns, .x_dtype = x, .y_dtype = y};
      grad.x = grad.dy = grad.dx = rows;
      grad.weight = grad.rstd = grad.dweight = grad.workspace = nowhere<float>();
      all.add("rows", plan_rms_norm_grad(grad), traffic(elements * (2 * bytes_of(x) + bytes_of(y))));
    }
}

}  // namespace

void add_row_launches(NamedLaunches& all) {
  add_norms(all);
  const Matrix rows{nowhere(), kColumns};
  const double elements = static_cast<double>(kTokens * kColumns);
  for (const DType dtype : kDtypes) {
    const double bytes = bytes_of(dtype);
    Rotary rotary{
        .tokens = kTokens, .heads = kHeads, .half = 64, .dtype = dtype, .x = nowhere(), .y = nowhere()};
    rotary.x_token = rotary.y_token = kHeads * 128, rotary.x_head = rotary.y_head = 128;
    rotary.cos = rotary.sin = nowhere<const float>();
    for (const bool neighbours : {false, true}) {
      rotary.neighbours = neighbours;
      all.add("rows", plan_rotary(rotary), traffic(2.0 * kTokens * kHeads * 128 * bytes));
    }
    SiluProduct product{
        .rows = kTokens, .columns = kColumns, .dtype = dtype, .gate = rows, .up = rows, .y = rows};
    all.add("rows", plan_silu_product(product), traffic(3 * elements * bytes));
    product.dy = product.dgate = product.dup = rows;
    all.add("rows", plan_silu_product(product), traffic(5 * elements * bytes));
    CrossEntropy loss{.rows = kTokens, .columns = kLogits, .dtype = dtype, .logits = {nowhere(), kLogits}};
    loss.labels = nowhere<const int64_t>();
    loss.nll = loss.lse = nowhere<float>(), loss.loss = nowhere<double>();
    loss.gradient = true;
    all.add("rows", plan_cross_entropy(loss), traffic(2.0 * kTokens * kLogits * bytes));
  }
}

}  // namespace longreach::cuda
