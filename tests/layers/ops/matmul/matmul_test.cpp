// Products through either library: the same values to rounding, all derivatives, and bits that depend on the
// choice alone.
#include "layers/ops/matmul/matmul.h"

#include <ATen/ops/mm.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

#include "core/error.h"
#include "layers/basic/projection.h"
#include "tests/support/errors.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

class Matmul : public testing::TestWithParam<MatmulLibrary> {
 protected:
  void SetUp() override {
    if (GetParam() == MatmulLibrary::kOneDnn && !onednn_matmul_available())
      GTEST_SKIP() << "oneDNN's float32 products need AVX-512";
    set_matmul_library(GetParam());
  }
  void TearDown() override { set_matmul_library(MatmulLibrary::kDefault); }
};

at::Tensor floats(at::IntArrayRef shape, uint64_t seed) { return test::normal(shape, seed, at::kFloat); }

double error_of(const at::Tensor& product, const at::Tensor& a, const at::Tensor& b) {
  return test::relative_error(product, at::mm(a.to(at::kDouble), b.to(at::kDouble)));
}

// Below the size from which oneDNN is asked, at it, and above; every operand also as a transposed and as a
// cut view.
TEST_P(Matmul, EqualsFloat64InEveryLayout) {
  for (const int64_t size : {1, 33, 101, 128, 257}) {
    const at::Tensor a = floats({size, 96}, 1), b = floats({96, size + 5}, 2);
    const at::Tensor a_t = a.t().contiguous().t(), b_t = b.t().contiguous().t();
    const at::Tensor a_cut = floats({size, 130}, 3).narrow(1, 7, 96),
                     b_cut = floats({96, size + 50}, 4).narrow(1, 9, size + 5);
    for (const at::Tensor& left : {a, a_t, a_cut})
      for (const at::Tensor& right : {b, b_t, b_cut}) {
        const at::Tensor product = matrix_product(left, right);
        EXPECT_LT(error_of(product, left, right), 1e-6) << size;
        EXPECT_TRUE(product.is_contiguous());
      }
  }
}

TEST_P(Matmul, TakesEmptyOperandsAndOtherDtypes) {
  EXPECT_EQ(matrix_product(floats({0, 8}, 1), floats({8, 4}, 2)).sizes(), (std::vector<int64_t>{0, 4}));
  EXPECT_EQ(linear_product(floats({2, 0, 8}, 1), floats({4, 8}, 2)).sizes(), (std::vector<int64_t>{2, 0, 4}));
  const at::Tensor a = test::normal({128, 128}, 3), b = test::normal({128, 128}, 4);
  EXPECT_TRUE(matrix_product(a, b).equal(at::mm(a, b))) << "float64";
}

TEST_P(Matmul, NonFiniteValuesStay) {
  at::Tensor a = floats({128, 128}, 1);
  a[3][5] = std::numeric_limits<float>::quiet_NaN();
  a[4][5] = std::numeric_limits<float>::infinity();
  const at::Tensor product = matrix_product(a, floats({128, 128}, 2));
  EXPECT_TRUE(product[3].isnan().all().item<bool>());
  EXPECT_TRUE(product[4].isinf().all().item<bool>());
  EXPECT_EQ(product.isfinite().sum().item<int64_t>(), 126 * 128);
}

// x [2, 70, 96], weight [130, 96], bias: value and all gradients against float64, and the gradient of a
// gradient.
TEST_P(Matmul, ALinearMapHasAllItsDerivatives) {
  const at::Tensor x = floats({2, 70, 96}, 1), w = floats({130, 96}, 2), bias = floats({130}, 3);
  const at::Tensor dy = floats({2, 70, 130}, 4);
  const auto derivatives = [&](at::ScalarType dtype) {
    std::vector<at::Tensor> in;
    for (const at::Tensor& one : {x, w, bias}) in.push_back(one.to(dtype).clone().requires_grad_());
    const at::Tensor y = linear_map(in[0], in[1], in[2]);
    const std::vector<at::Tensor> first =
        torch::autograd::grad({(y * y).sum() + (y * dy.to(dtype)).sum()}, in, {}, true, true);
    std::vector<at::Tensor> second = torch::autograd::grad({first[0].square().sum()}, {in[0], in[1]});
    second.insert(second.end(), first.begin(), first.end());
    second.push_back(y);
    return second;
  };
  const std::vector<at::Tensor> found = derivatives(at::kFloat), expected = derivatives(at::kDouble);
  for (size_t i = 0; i < found.size(); ++i)
    EXPECT_LT(test::relative_error(found[i].detach(), expected[i].detach()), 2e-6) << i;
}

TEST_P(Matmul, RepeatsItsBits) {
  const at::Tensor a = floats({300, 200}, 1), b = floats({200, 100}, 2);
  EXPECT_TRUE(matrix_product(a, b).equal(matrix_product(a, b)));
}

INSTANTIATE_TEST_SUITE_P(Libraries, Matmul, testing::Values(MatmulLibrary::kDefault, MatmulLibrary::kOneDnn),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST(MatmulLibraryNames, AreReadAndRefused) {
  EXPECT_EQ(matmul_library_named("default"), MatmulLibrary::kDefault);
  test::expect_error<ConfigError>("expected default or onednn", [] { matmul_library_named("mkl"); });
  if (onednn_matmul_available()) {
    EXPECT_EQ(matmul_library_named("onednn"), MatmulLibrary::kOneDnn);
  } else {
    test::expect_error<ConfigError>("AVX-512", [] { matmul_library_named("onednn"); });
  }
}

}  // namespace
}  // namespace longreach
