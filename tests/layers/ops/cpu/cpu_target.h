// A test for every instruction set of this CPU that the kernels are built for.
#pragma once
#include <gtest/gtest.h>
#include <hwy/highway.h>

#include <string>
#include <vector>

#include "layers/ops/cpu/amx.h"
#include "layers/ops/cpu/bf16_dot.h"
#include "layers/ops/cpu/softmax_inputs.h"

namespace longreach::test {

class CpuTarget : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override {
    hwy::SetSupportedTargetsForTest(0);
    softmax_tile::set_bf16_product_for_test(best_);
  }

  // Calls f(is it the first one) for every way to multiply bf16 tiles.
  template <class F>
  void for_products(F f) {
    using softmax_tile::Bf16Product;
    std::vector<Bf16Product> products{Bf16Product::kFloat};
    if (simd::has_bf16_dot()) products.push_back(Bf16Product::kDot);
    if (simd::has_amx()) products.push_back(Bf16Product::kTiles);
    for (const auto product : products) {
      softmax_tile::set_bf16_product_for_test(product);
      f(product == products.front());
    }
  }

 private:
  softmax_tile::Bf16Product best_ = softmax_tile::bf16_product();
};

inline auto cpu_targets() { return testing::ValuesIn(hwy::SupportedAndGeneratedTargets()); }
inline std::string cpu_target_name(const testing::TestParamInfo<int64_t>& info) {
  return hwy::TargetName(info.param);
}

}  // namespace longreach::test
