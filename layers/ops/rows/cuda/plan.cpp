#include "layers/ops/rows/cuda/plan.h"

#include <algorithm>
#include <limits>
#include <string>

#include "core/error.h"
#include "layers/ops/rows/cuda/params.h"

namespace longreach::cuda {
namespace {

constexpr int64_t kGridLimit = std::numeric_limits<int32_t>::max(), kNormColumns = 16384, kNormBlocks = 256;

size_t element_bytes(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

std::string suffix(DType dtype, const char* kernel) {
  switch (dtype) {
    case DType::kFloat32:
      return "_fp32";
    case DType::kBFloat16:
      return "_bf16";
    case DType::kFloat16:
      return "_fp16";
  }
  throw DtypeError(text(kernel, ": element type ", static_cast<int>(dtype),
                        " is not built for CUDA; built: float32, bfloat16, float16"));
}

template <class T>
T* expect_aligned(T* pointer, size_t bytes, const char* name) {
  check<ShapeError>(pointer != nullptr, name, ": no memory");
  check<ShapeError>(reinterpret_cast<uintptr_t>(pointer) % bytes == 0, name, ": address ",
                    static_cast<const void*>(pointer), " is not a multiple of ", bytes, " bytes");
  return pointer;
}

void expect_size(int64_t size, int64_t low, int64_t high, const char* name) {
  check<ShapeError>(size >= low && size <= high, name, " = ", size, "; built for CUDA: ", low, " to ", high);
}

// Whether 4 elements can be read at once from every multiple of 4 of every row.
bool has_quads(const void* data, size_t bytes, std::initializer_list<int64_t> strides) {
  return reinterpret_cast<uintptr_t>(data) % (4 * bytes) == 0 &&
         std::all_of(strides.begin(), strides.end(), [](int64_t stride) { return stride % 4 == 0; });
}

Rows rows_of(const Matrix& x, int64_t rows, DType dtype, const char* name) {
  const size_t bytes = element_bytes(dtype);
  expect_aligned(x.data, bytes, name);
  return {x.data, x.row, has_quads(x.data, bytes, {rows > 1 ? x.row : 0}) ? 1 : 0};
}

template <class Params>
Launch row_launch(const std::string& kernel, int64_t blocks, const Params& params, int64_t parts = 1,
                  size_t shared = 0) {
  return make_launch(kernel, Dim3{static_cast<uint32_t>(blocks), static_cast<uint32_t>(parts), 1},
                     Dim3{kRowThreads, 1, 1}, static_cast<uint32_t>(shared), params);
}

std::string norm_suffix(DType x, DType y) {
  const std::string name = suffix(x, "rms_norm: x") + suffix(y, "rms_norm: y");
  check<DtypeError>(x == y || x == DType::kFloat32, "rms_norm: x", suffix(x, ""), " to y", suffix(y, ""),
                    " is not built for CUDA; built: x and y of one type, or x float32");
  return name;
}

int64_t norm_blocks(int64_t rows) { return std::clamp<int64_t>((rows + 3) / 4, 1, kNormBlocks); }

}  // namespace

std::vector<Launch> plan_rms_norm(const RmsNorm& p) {
  const std::string name = "rms_norm" + norm_suffix(p.x_dtype, p.y_dtype);
  expect_size(p.columns, 1, kNormColumns, "rms_norm: columns");
  expect_size(p.rows, 0, kGridLimit, "rms_norm: rows");
  if (p.rows == 0) return {};
  if (p.weight) expect_aligned(p.weight, 4, "rms_norm: weight");
  return {row_launch(name, p.rows,
                     RmsNormParams{rows_of(p.x, p.rows, p.x_dtype, "rms_norm: x"),
                                   rows_of(p.y, p.rows, p.y_dtype, "rms_norm: y"), p.weight,
                                   expect_aligned(p.rstd, 4, "rms_norm: rstd"), p.rows,
                                   static_cast<int32_t>(p.columns), p.eps})};
}

size_t rms_norm_workspace_bytes(int64_t rows, int64_t columns) {
  return static_cast<size_t>(norm_blocks(rows) * columns) * sizeof(float);
}

std::vector<Launch> plan_rms_norm_grad(const RmsNormGrad& p) {
  const std::string name = "rms_norm_grad" + norm_suffix(p.x_dtype, p.y_dtype);
  expect_size(p.columns, 1, kNormColumns, "rms_norm: columns");
  expect_size(p.rows, 0, kGridLimit, "rms_norm: rows");
  if (p.weight) expect_aligned(p.weight, 4, "rms_norm: weight");
  const int64_t blocks = norm_blocks(p.rows);
  const auto columns = static_cast<int32_t>(p.columns);
  const auto pitch =
      static_cast<int32_t>(((p.columns + 3) / 4 + 31) / 32 * 32 + 8);  // 8 more than a multiple of 32 banks
  RmsNormGradParams params{.rows = p.rows, .columns = columns, .pitch = pitch};
  if (p.rows > 0) {
    params.x = rows_of(p.x, p.rows, p.x_dtype, "rms_norm: x");
    params.dy = rows_of(p.dy, p.rows, p.y_dtype, "rms_norm: grad of y");
    params.dx = rows_of(p.dx, p.rows, p.x_dtype, "rms_norm: grad of x");
    params.rstd = expect_aligned(p.rstd, 4, "rms_norm: rstd");
  }
  params.weight = p.weight;
  if (p.dweight == nullptr) {
    if (p.rows == 0) return {};
    return {row_launch(name, blocks, params)};
  }
  params.partials = expect_aligned(p.workspace, 16, "rms_norm: workspace");
  return {row_launch(name, blocks, params, 1, 4 * static_cast<size_t>(pitch) * sizeof(float)),
          row_launch("column_sums", (p.columns + 31) / 32,
                     ColumnSumParams{p.workspace, expect_aligned(p.dweight, 4, "rms_norm: grad of weight"),
                                     static_cast<int32_t>(blocks), columns})};
}

std::vector<Launch> plan_rotary(const Rotary& p) {
  const std::string name = (p.neighbours ? "rotary_neighbours" : "rotary_halves") + suffix(p.dtype, "rotary");
  expect_size(p.tokens, 0, kGridLimit, "rotary: tokens");
  expect_size(p.half, 1, 1 << 16, "rotary: half of the head");
  expect_size(p.heads, 0, 1 << 12, "rotary: heads");
  if (p.tokens == 0 || p.heads == 0) return {};
  const int64_t shares = p.neighbours ? (p.half + 1) / 2 : (p.half + 3) / 4;  // threads a head
  const size_t bytes = element_bytes(p.dtype);
  expect_aligned(p.x, bytes, "rotary: x"), expect_aligned(p.y, bytes, "rotary: y");
  expect_aligned(p.cos, 4, "rotary: cos"), expect_aligned(p.sin, 4, "rotary: sin");
  const int64_t head_strides = p.heads > 1 ? p.x_head | p.y_head : 0,
                token_strides = p.tokens > 1 ? p.x_token | p.y_token : 0;
  const bool quads = has_quads(p.x, bytes, {head_strides, token_strides, p.neighbours ? 0 : p.half}) &&
                     has_quads(p.y, bytes, {}) && has_quads(p.cos, 4, {p.half}) &&
                     has_quads(p.sin, 4, {p.half});
  return {row_launch(
      name, p.tokens,
      RotaryParams{p.x, p.y, p.x_token, p.x_head, p.y_token, p.y_head, p.tokens, p.cos, p.sin,
                   static_cast<int32_t>(p.heads), static_cast<int32_t>(p.half), quads ? 1 : 0, p.direction},
      (shares * p.heads + kRowThreads - 1) / kRowThreads)};
}

std::vector<Launch> plan_silu_product(const SiluProduct& p) {
  const std::string type = suffix(p.dtype, "silu_product");
  expect_size(p.columns, 1, kGridLimit - 4 * kRowThreads, "silu_product: columns");
  expect_size(p.rows, 0, kGridLimit, "silu_product: rows");
  if (p.rows == 0) return {};
  const auto view = [&](const Matrix& x, const char* what) { return rows_of(x, p.rows, p.dtype, what); };
  SiluProductParams params{.gate = view(p.gate, "silu_product: gate"),
                           .up = view(p.up, "silu_product: up"),
                           .rows = p.rows,
                           .columns = static_cast<int32_t>(p.columns)};
  if (p.dy.data == nullptr) {
    params.y = view(p.y, "silu_product: y");
    return {row_launch("silu_product" + type, p.rows, params)};
  }
  params.dy = view(p.dy, "silu_product: grad of y");
  params.dgate = view(p.dgate, "silu_product: grad of gate"),
  params.dup = view(p.dup, "silu_product: grad of up");
  return {row_launch("silu_product_grad" + type, p.rows, params)};
}

std::vector<Launch> plan_cross_entropy(const CrossEntropy& p) {
  const std::string name = "cross_entropy" + suffix(p.dtype, "cross_entropy");
  expect_size(p.columns, 1, kGridLimit - 4 * kRowThreads, "cross_entropy: columns");
  expect_size(p.rows, 0, kGridLimit, "cross_entropy: rows");
  if (p.rows == 0) return {};
  std::vector<Launch> plan{row_launch(
      name, p.rows,
      CrossEntropyParams{rows_of(p.logits, p.rows, p.dtype, "cross_entropy: logits"),
                         expect_aligned(p.labels, 8, "cross_entropy: labels"),
                         expect_aligned(p.nll, 4, "cross_entropy: nll"),
                         expect_aligned(p.lse, 4, "cross_entropy: lse"), p.rows, p.ignored,
                         static_cast<int32_t>(p.columns), p.gradient ? 1 : 0, p.z_loss, p.grad_scale})};
  if (p.loss)
    plan.push_back(row_launch(
        "loss_sum", 1,
        LossSumParams{p.nll, p.lse, expect_aligned(p.loss, 8, "cross_entropy: loss"), p.rows, p.z_loss}));
  return plan;
}

}  // namespace longreach::cuda
