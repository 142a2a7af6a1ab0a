// The small CUDA kernels, run from their PTX, against the CPU modules in float64.
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstring>

#include "core/error.h"
#include "layers/basic/loss.h"
#include "layers/basic/rope.h"
#include "layers/ops/rows/cuda/plan.h"
#include "layers/ops/rows/rows.h"
#include "tests/ptx/interpreter/interpreter.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {
namespace {

constexpr at::ScalarType kDtypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

DType kernel_dtype(at::ScalarType dtype) {
  if (dtype == at::kFloat) return DType::kFloat32;
  return dtype == at::kBFloat16 ? DType::kBFloat16 : DType::kFloat16;
}
double limit(at::ScalarType dtype) {
  return dtype == at::kFloat ? 1e-5 : dtype == at::kBFloat16 ? 1e-2 : 2e-3;
}

// Global memory and the kernels. A matrix's rows lie `gap` elements apart, `offset` elements into their
// buffer.
class Gpu {
 public:
  explicit Gpu(int64_t gap = 0, int64_t offset = 0, bool profile = false) : gap_(gap), offset_(offset) {
    options_.profile = profile;
  }
  cuda::Matrix place(const char* name, const at::Tensor& x) {  // [rows, columns]
    const int64_t pitch = x.size(1) + gap_, bytes = x.element_size();
    auto* data = static_cast<std::byte*>(memory.allocate(name, (x.size(0) * pitch + offset_ + 1) * bytes));
    return {data + offset_ * bytes, pitch};
  }
  cuda::Matrix upload(const char* name, const at::Tensor& x) {
    const cuda::Matrix m = place(name, x);
    const at::Tensor dense = x.contiguous();
    const int64_t width = x.size(1) * x.element_size();
    for (int64_t r = 0; r < x.size(0); ++r) {
      auto* to = static_cast<std::byte*>(m.data) + r * m.row * x.element_size();
      std::memcpy(to, static_cast<const std::byte*>(dense.const_data_ptr()) + r * width, width);
      memory.mark_written(to, width);
    }
    return m;
  }
  at::Tensor download(const cuda::Matrix& m, const at::Tensor& like) {
    at::Tensor x = at::empty(like.sizes(), like.options());
    const int64_t width = x.size(1) * x.element_size();
    for (int64_t r = 0; r < x.size(0); ++r) {
      const auto* from = static_cast<const std::byte*>(m.data) + r * m.row * x.element_size();
      memory.require_written(from, width);
      std::memcpy(static_cast<std::byte*>(x.mutable_data_ptr()) + r * width, from, width);
    }
    return x;
  }
  template <class T>
  T* array(const char* name, const at::Tensor& x) {
    const at::Tensor dense = x.contiguous();
    return memory.upload(name, std::span<const T>(dense.const_data_ptr<T>(), dense.numel()));
  }
  template <class T>
  T* array(const char* name, int64_t count) {
    return memory.allocate_array<T>(name, static_cast<size_t>(count));
  }
  template <class T>
  at::Tensor download(const T* data, at::IntArrayRef shape) {
    at::Tensor x = at::empty(shape, c10::CppTypeToScalarType<T>::value);
    const std::vector<T> values = memory.download(data, static_cast<size_t>(x.numel()));
    if (!values.empty()) std::memcpy(x.mutable_data_ptr(), values.data(), values.size() * sizeof(T));
    return x;
  }
  void launch(const std::vector<cuda::Launch>& plan) {
    static const ptx::Module module = ptx::load_kernels("rows_kernels");
    for (const cuda::Launch& launch : plan) {
      const ptx::Report report = ptx::run(module, launch, memory, options_);
      EXPECT_TRUE(report.errors.empty()) << report.text();
      if (!options_.profile) continue;
      EXPECT_LE(report.shared_wavefront_ratio(), 1.05) << report.text();
      EXPECT_LE(report.sector_ratio(), 1.10) << report.text();
    }
  }

  ptx::Memory memory;

 private:
  int64_t gap_, offset_;
  ptx::Options options_;
};

// Rows that begin anywhere, and rows whose gaps keep multiples of 4.
struct Place {
  int64_t gap, offset;
};
constexpr Place kPlaces[] = {{0, 0}, {1, 3}, {8, 0}};

at::Tensor wide(const at::Tensor& x, bool grad = false) {
  return x.to(at::kDouble).detach().requires_grad_(grad);
}

void expect_norm(int64_t rows, int64_t columns, at::ScalarType x_dtype, at::ScalarType y_dtype, Place place,
                 bool weighted, bool profile = false) {
  SCOPED_TRACE(::testing::Message() << rows << "x" << columns << " " << x_dtype << " to " << y_dtype
                                    << " gap " << place.gap);
  const at::Tensor x = normal({rows, columns}, 1, x_dtype), dy = normal({rows, columns}, 2, y_dtype);
  const at::Tensor weight = weighted ? normal({columns}, 3, at::kFloat) : at::Tensor();
  const double eps = 1e-5;
  const at::Tensor exact_x = wide(x, true), exact_weight = weighted ? wide(weight, true) : at::Tensor();
  const at::Tensor exact_y = rms_norm(exact_x, exact_weight, eps);
  std::vector<at::Tensor> inputs{exact_x};
  if (weighted) inputs.push_back(exact_weight);
  const auto exact = torch::autograd::grad({exact_y}, inputs, {wide(dy)});

  Gpu gpu(place.gap, place.offset, profile);
  cuda::RmsNorm forward{
      .rows = rows, .columns = columns, .x_dtype = kernel_dtype(x_dtype), .y_dtype = kernel_dtype(y_dtype)};
  forward.x = gpu.upload("x", x), forward.y = gpu.place("y", dy), forward.eps = static_cast<float>(eps);
  forward.rstd = gpu.array<float>("rstd", rows);
  if (weighted) forward.weight = gpu.array<float>("weight", weight);
  gpu.launch(cuda::plan_rms_norm(forward));
  EXPECT_LE(relative_error(gpu.download(forward.y, dy), exact_y.detach()), limit(y_dtype));
  cuda::RmsNormGrad backward{
      .rows = rows, .columns = columns, .x_dtype = forward.x_dtype, .y_dtype = forward.y_dtype};
  backward.x = forward.x, backward.weight = forward.weight, backward.rstd = forward.rstd;
  backward.dy = gpu.upload("dy", dy), backward.dx = gpu.place("dx", x);
  if (weighted) {
    backward.dweight = gpu.array<float>("dweight", columns);
    backward.workspace =
        gpu.array<float>("workspace", cuda::rms_norm_workspace_bytes(rows, columns) / sizeof(float));
  }
  gpu.launch(cuda::plan_rms_norm_grad(backward));
  EXPECT_LE(relative_error(gpu.download(backward.dx, x), exact[0]), limit(x_dtype));
  if (!weighted) return;
  EXPECT_LE(relative_error(gpu.download(backward.dweight, {columns}), exact[1]), 1e-5);
}

TEST(CudaKernels, RmsNorm) {
  for (const auto dtype : kDtypes)
    for (const Place& place : kPlaces)
      for (const int64_t columns : {5, 64, 1030}) expect_norm(9, columns, dtype, dtype, place, true);
  for (const auto y : {at::kBFloat16, at::kHalf}) expect_norm(3, 100, at::kFloat, y, {0, 0}, true);
  expect_norm(3, 100, at::kFloat, at::kFloat, {0, 0}, false);
  expect_norm(1100, 16, at::kBFloat16, at::kBFloat16, {0, 0}, true);  // more rows than blocks x 4
  expect_norm(2, 16384, at::kBFloat16, at::kBFloat16, {0, 0}, true);
}

TEST(CudaKernels, RmsNormOfNoRows) {
  Gpu gpu;
  cuda::RmsNormGrad backward{.rows = 0, .columns = 40};
  backward.dweight = gpu.array<float>("dweight", 40);
  backward.workspace = gpu.array<float>("workspace", cuda::rms_norm_workspace_bytes(0, 40) / sizeof(float));
  gpu.launch(cuda::plan_rms_norm_grad(backward));
  EXPECT_EQ(gpu.download(backward.dweight, {40}).abs().max().item<float>(), 0);
}

// x and y [tokens, heads * 2 half] in rows.
void expect_rotary(int64_t tokens, int64_t heads, int64_t half, at::ScalarType dtype, bool neighbours,
                   Place place, bool profile = false) {
  SCOPED_TRACE(::testing::Message() << tokens << " tokens, " << heads << " heads, half " << half << " "
                                    << dtype << (neighbours ? " neighbours" : " halves") << " gap "
                                    << place.gap);
  const at::Tensor x = normal({tokens, heads, 2 * half}, 1, dtype), angles = normal({1, tokens, half}, 2) * 3;
  const at::Tensor cos = angles.cos().to(at::kFloat), sin = angles.sin().to(at::kFloat);
  // Neighbours 2i, 2i + 1 are features i and i + half of a permuted head.
  at::Tensor order = at::arange(2 * half, at::kLong);
  if (neighbours) order = order.view({half, 2}).t().reshape({-1});
  const at::Tensor back = order.argsort();
  const Rotation turn{wide(cos), wide(sin)};
  const at::Tensor exact_x = wide(x, true);
  const at::Tensor exact =
      rotate(exact_x.unsqueeze(0).index_select(3, order), turn).index_select(3, back).squeeze(0);
  const at::Tensor exact_grad = torch::autograd::grad({exact}, {exact_x}, {wide(x)})[0];

  for (const float direction : {1.0f, -1.0f}) {  // the gradient for dy = x is x turned back
    Gpu gpu(place.gap, place.offset, profile);
    const at::Tensor rows = x.view({tokens, -1});
    const cuda::Matrix in = gpu.upload("x", rows), out = gpu.place("y", rows);
    cuda::Rotary rotary{.tokens = tokens,
                        .heads = heads,
                        .half = half,
                        .dtype = kernel_dtype(dtype),
                        .neighbours = neighbours};
    rotary.x = in.data, rotary.y = out.data, rotary.x_token = in.row, rotary.y_token = out.row;
    rotary.x_head = rotary.y_head = 2 * half;
    rotary.cos = gpu.array<float>("cos", cos), rotary.sin = gpu.array<float>("sin", sin);
    rotary.direction = direction;
    gpu.launch(cuda::plan_rotary(rotary));
    const at::Tensor& wanted = direction > 0 ? exact : exact_grad;
    EXPECT_LE(relative_error(gpu.download(out, rows), wanted.detach().reshape({tokens, -1})), limit(dtype));
  }
}

TEST(CudaKernels, Rotary) {
  for (const auto dtype : kDtypes)
    for (const bool neighbours : {false, true})
      for (const Place& place : kPlaces)
        for (const int64_t half : {3, 16, 18}) expect_rotary(5, 3, half, dtype, neighbours, place);
}

void expect_silu_product(int64_t rows, int64_t columns, at::ScalarType dtype, Place place, double factor = 1,
                         bool profile = false) {
  SCOPED_TRACE(::testing::Message() << rows << "x" << columns << " " << dtype << " gap " << place.gap);
  const at::Tensor gate = normal({rows, columns}, 1, dtype) * factor, up = normal({rows, columns}, 2, dtype),
                   dy = normal({rows, columns}, 3, dtype);
  const at::Tensor exact_gate = wide(gate, true), exact_up = wide(up, true);
  const at::Tensor exact = silu_product(exact_gate, exact_up);
  const auto grads = torch::autograd::grad({exact}, {exact_gate, exact_up}, {wide(dy)});
  Gpu gpu(place.gap, place.offset, profile);
  cuda::SiluProduct p{.rows = rows, .columns = columns, .dtype = kernel_dtype(dtype)};
  p.gate = gpu.upload("gate", gate), p.up = gpu.upload("up", up), p.y = gpu.place("y", dy);
  gpu.launch(cuda::plan_silu_product(p));
  EXPECT_LE(relative_error(gpu.download(p.y, dy), exact.detach()), limit(dtype));
  p.dy = gpu.upload("dy", dy), p.dgate = gpu.place("dgate", gate), p.dup = gpu.place("dup", up);
  gpu.launch(cuda::plan_silu_product(p));
  EXPECT_LE(relative_error(gpu.download(p.dgate, gate), grads[0]), limit(dtype));
  EXPECT_LE(relative_error(gpu.download(p.dup, up), grads[1]), limit(dtype));
}

TEST(CudaKernels, SiluProduct) {
  for (const auto dtype : kDtypes)
    for (const Place& place : kPlaces)
      for (const int64_t columns : {1, 130, 1027}) expect_silu_product(3, columns, dtype, place);
  expect_silu_product(3, 500, at::kFloat, {0, 0}, 100);  // sigmoids of 0 and 1
}

void expect_cross_entropy(int64_t rows, int64_t columns, at::ScalarType dtype, Place place, double factor,
                          bool profile = false) {
  SCOPED_TRACE(::testing::Message() << rows << "x" << columns << " " << dtype << " gap " << place.gap << " x"
                                    << factor);
  const at::Tensor logits = normal({rows, columns}, 1, dtype) * factor;
  at::Tensor labels = (normal({rows}, 2).abs() * 7919).to(at::kLong).remainder(columns);
  if (rows > 1) labels[1] = kIgnoredLabel;
  const double z_loss = 1e-3, scale = 0.25;
  // Hidden states that are the logits, and the identity as the vocabulary's weight.
  const at::Tensor exact_logits = wide(logits, true);
  const auto exact =
      cross_entropy_reference(exact_logits, at::eye(columns, at::kDouble), labels, {.z_loss = z_loss});
  const at::Tensor grad = torch::autograd::grad({exact.loss_sum}, {exact_logits})[0] * scale;
  const at::Tensor exact_lse = exact_logits.detach().logsumexp(1) * labels.ne(kIgnoredLabel);

  Gpu gpu(place.gap, place.offset, profile);
  cuda::CrossEntropy p{.rows = rows, .columns = columns, .dtype = kernel_dtype(dtype)};
  p.logits = gpu.upload("logits", logits), p.labels = gpu.array<int64_t>("labels", labels);
  p.nll = gpu.array<float>("nll", rows), p.lse = gpu.array<float>("lse", rows);
  p.loss = gpu.array<double>("loss", at::tensor({1.5}, at::kDouble));
  p.z_loss = static_cast<float>(z_loss), p.grad_scale = static_cast<float>(scale);
  gpu.launch(cuda::plan_cross_entropy(p));
  EXPECT_TRUE(at::equal(gpu.download(p.logits, logits), logits));  // asked for no gradient
  p.gradient = true, p.loss = nullptr;
  gpu.launch(cuda::plan_cross_entropy(p));
  EXPECT_LE(relative_error(gpu.download(p.nll, {rows}), exact.nll), 1e-5);
  EXPECT_LE(relative_error(gpu.download(p.lse, {rows}), exact_lse), 1e-5);
  EXPECT_LE(relative_error(gpu.download(p.logits, logits), grad), limit(dtype));
}

// Even distances between rows: the interpreter judges races by 32-bit words, and the last 16-bit logit of a
// row must not share one with the next row.
TEST(CudaKernels, CrossEntropy) {
  for (const auto dtype : kDtypes)
    for (const int64_t columns : {2, 130, 1027})
      for (const int64_t offset : {int64_t{0}, int64_t{2}, int64_t{4}, columns % 2})
        expect_cross_entropy(5, columns, dtype, {columns % 2 + 2, offset}, 1);
  for (const auto dtype : kDtypes) expect_cross_entropy(5, 300, dtype, {0, 0}, 8);
}

TEST(CudaKernels, LossIsAddedUp) {
  const int64_t rows = 700, columns = 8;
  const at::Tensor logits = normal({rows, columns}, 1, at::kFloat);
  const at::Tensor labels = at::arange(rows, at::kLong).remainder(columns);
  const auto exact =
      cross_entropy_reference(wide(logits), at::eye(columns, at::kDouble), labels, {.z_loss = 0.5});
  Gpu gpu;
  cuda::CrossEntropy p{.rows = rows, .columns = columns};
  p.logits = gpu.upload("logits", logits), p.labels = gpu.array<int64_t>("labels", labels);
  p.nll = gpu.array<float>("nll", rows), p.lse = gpu.array<float>("lse", rows);
  p.loss = gpu.array<double>("loss", at::tensor({1.5}, at::kDouble));
  p.z_loss = 0.5f;
  gpu.launch(cuda::plan_cross_entropy(p));
  const double loss = gpu.download(p.loss, {1}).item<double>();
  EXPECT_NEAR(loss, 1.5 + exact.loss_sum.item<double>(), 1e-5 * loss);
}

TEST(CudaKernels, FullRowsWasteNothing) {
  for (const auto dtype : kDtypes) {
    expect_norm(16, 2048, dtype, dtype, {0, 0}, true, true);
    expect_rotary(4, 8, 64, dtype, false, {0, 0}, true);
    expect_rotary(4, 8, 64, dtype, true, {0, 0}, true);
    expect_silu_product(2, 2048, dtype, {0, 0}, 1, true);
    expect_cross_entropy(2, 2048, dtype, {0, 0}, 1, true);
  }
}

TEST(CudaKernels, RefusesWhatIsNotBuilt) {
  const auto refuses = [](const auto& plan, const char* words) {
    try {
      plan();
      ADD_FAILURE() << "accepted: " << words;
    } catch (const UserError& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  };
  alignas(16) static float memory[4];
  cuda::RmsNorm norm{.rows = 1, .columns = 16385};
  refuses([&] { cuda::plan_rms_norm(norm); }, "columns = 16385; built for CUDA: 1 to 16384");
  norm = {.rows = 1, .columns = 4, .x_dtype = DType::kBFloat16};
  refuses([&] { cuda::plan_rms_norm(norm); }, "built: x and y of one type, or x float32");
  cuda::SiluProduct product{.rows = 1, .columns = 4};
  refuses([&] { cuda::plan_silu_product(product); }, "silu_product: gate: no memory");
  product.gate.data = reinterpret_cast<std::byte*>(memory) + 2;
  refuses([&] { cuda::plan_silu_product(product); }, "is not a multiple of 4 bytes");
  cuda::CrossEntropy loss{.rows = 1, .columns = 4, .dtype = static_cast<DType>(9)};
  refuses([&] { cuda::plan_cross_entropy(loss); }, "built: float32, bfloat16, float16");
}

}  // namespace
}  // namespace longreach::test
