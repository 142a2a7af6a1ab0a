// Tests on a CUDA device: skipped where there is none, and they say so.
#pragma once
#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "layers/ops/cuda/backend.h"

namespace longreach::test {

class Device : public testing::Test {
 protected:
  void SetUp() override {
    try {
      cuda::backend();
    } catch (const UserError& error) {
      GTEST_SKIP() << "skipped: " << error.what();
    }
  }
};

inline at::Tensor on_device(const at::Tensor& x) { return x.defined() ? x.to(at::kCUDA) : x; }

}  // namespace longreach::test
