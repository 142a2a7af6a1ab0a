// The modules and operators on the device's path, forward and backward through autograd, every kernel
// interpreted, against the same call in float64 on the CPU.
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <functional>

#include "core/error.h"
#include "layers/basic/loss.h"
#include "layers/basic/rope.h"
#include "layers/ops/block_attention/block_attention.h"
#include "layers/ops/interval_attention/interval_attention.h"
#include "layers/ops/recurrence/recurrence.h"
#include "layers/ops/rows/rows.h"
#include "tests/layers/ops/cuda/interpreted_device.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {
namespace {

using Tensors = std::vector<at::Tensor>;
using Function = std::function<at::Tensor(const Tensors&)>;

// y and the gradient of every floating input for a gradient of y that is the same in every type.
Tensors results(const Function& f, Tensors inputs) {
  Tensors leaves;
  for (at::Tensor& x : inputs)
    if (x.is_floating_point()) leaves.push_back(x = x.detach().clone().requires_grad_(true));
  const at::Tensor y = f(inputs);
  const at::Tensor grad = normal(y.sizes(), 77).to(at::kBFloat16).to(y.scalar_type());
  Tensors all{y.detach()};
  for (const at::Tensor& g : torch::autograd::grad({y}, leaves, {grad})) all.push_back(g);
  return all;
}

double limit(at::ScalarType dtype) {
  return dtype == at::kFloat ? 1e-5 : dtype == at::kBFloat16 ? 1e-2 : 2e-3;
}

// Inputs are rounded to `dtype` but for those whose place is in `kept`.
void expect_same_on_device(const Function& f, const Tensors& inputs, at::ScalarType dtype,
                           const std::vector<size_t>& kept = {}) {
  SCOPED_TRACE(at::toString(dtype));
  Tensors rounded, exact;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const bool keep = !inputs[i].is_floating_point() || std::find(kept.begin(), kept.end(), i) != kept.end();
    rounded.push_back(keep ? inputs[i] : inputs[i].to(dtype));
    exact.push_back(inputs[i].is_floating_point() ? rounded[i].to(at::kDouble) : inputs[i]);
  }
  const Tensors wanted = results(f, exact);
  const InterpretedDevice device;
  const Tensors found = results(f, rounded);
  EXPECT_FALSE(device.runs().empty());
  ASSERT_EQ(found.size(), wanted.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].sizes(), wanted[i].sizes());
    EXPECT_LE(relative_error(found[i], wanted[i]), limit(dtype)) << (i == 0 ? "y" : "gradient ") << i;
  }
}

constexpr at::ScalarType kDtypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

TEST(CudaModules, NormOfAnyStrides) {
  const at::Tensor x = normal({3, 7, 4, 24}, 1, at::kFloat), weight = normal({24}, 2, at::kFloat);
  const auto norm = [](const Tensors& in) { return rms_norm(in[0], in[1], 1e-5); };
  const auto turned = [](const Tensors& in) { return rms_norm(in[0].transpose(1, 2), in[1], 1e-5); };
  const auto columns = [](const Tensors& in) { return rms_norm(in[0].transpose(2, 3), {}, 1e-5); };
  const auto part = [](const Tensors& in) { return rms_norm(in[0].narrow(3, 1, 24), in[1], 1e-5); };
  for (const auto dtype : kDtypes) {
    expect_same_on_device(norm, {x, weight}, dtype, {1});
    expect_same_on_device(turned, {x, weight}, dtype, {1});
    expect_same_on_device(part, {normal({3, 7, 2, 26}, 3, at::kFloat), weight}, dtype, {1});
  }
  expect_same_on_device(columns, {x}, at::kFloat);
}

TEST(CudaModules, NormFromFloat32ToTheComputingType) {
  const InterpretedDevice device;
  const Tensors inputs{normal({5, 40}, 1, at::kFloat), normal({40}, 2, at::kFloat)};
  const at::Tensor y = rms_norm(inputs[0], inputs[1], 1e-5, at::kBFloat16);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(device.runs().contains("rms_norm_fp32_bf16"));
}

TEST(CudaModules, Rotation) {
  const at::Tensor x = normal({2, 9, 3, 20}, 1, at::kFloat),
                   positions = at::arange(18, at::kLong).view({2, 9});
  RotaryEmbedding embedding({}, 20, 64);
  const auto turned = [&](const Tensors& in) {
    return rotate(in[0], embedding.at(in[1], in[0].scalar_type()));
  };
  const auto heads_first = [&](const Tensors& in) {
    return rotate(in[0].transpose(1, 2), embedding.at(in[1], in[0].scalar_type()));
  };
  for (const auto dtype : kDtypes) {
    expect_same_on_device(turned, {x, positions}, dtype);
    expect_same_on_device(heads_first, {normal({2, 3, 9, 20}, 2, at::kFloat), positions}, dtype);
  }
}

TEST(CudaModules, SiluProduct) {
  const Tensors inputs{normal({2, 5, 33}, 1, at::kFloat), normal({2, 5, 33}, 2, at::kFloat)};
  const auto product = [](const Tensors& in) { return silu_product(in[0], in[1]); };
  const auto halves = [](const Tensors& in) {
    return silu_product(in[0].narrow(1, 0, 12), in[0].narrow(1, 12, 12));
  };
  for (const auto dtype : kDtypes) {
    expect_same_on_device(product, inputs, dtype);
    expect_same_on_device(halves, {normal({7, 24}, 3, at::kFloat)}, dtype);
  }
}

TEST(CudaModules, CrossEntropyInChunks) {
  at::Tensor labels = (normal({23}, 3).abs() * 7919).to(at::kLong).remainder(37);
  labels.narrow(0, 4, 3).fill_(kIgnoredLabel);
  const auto loss = [](const Tensors& in) {
    return chunked_cross_entropy(in[0], in[1], in[2], {.z_loss = 1e-3, .chunk_tokens = 8}).loss_sum;
  };
  const Tensors inputs{normal({23, 12}, 1, at::kFloat), normal({37, 12}, 2, at::kFloat), labels};
  for (const auto dtype : kDtypes) expect_same_on_device(loss, inputs, dtype, {1});
}

TEST(CudaModules, CrossEntropyWithoutGradients) {
  const at::Tensor hidden = normal({9, 12}, 1, at::kFloat), weight = normal({37, 12}, 2, at::kFloat);
  const at::Tensor labels = at::arange(9, at::kLong);
  const auto exact = cross_entropy_reference(hidden.to(at::kDouble), weight.to(at::kDouble), labels);
  const InterpretedDevice device;
  const auto found = chunked_cross_entropy(hidden.clone(), weight.clone(), labels.clone());
  EXPECT_LE(relative_error(found.nll, exact.nll), 1e-5);
  EXPECT_EQ(found.tokens, 9);
}

TEST(CudaModules, AttentionAndRecurrence) {
  const auto attention = [](const Tensors& in) {
    return interval_attention(in[0], in[1], in[2], {.window = 20, .sinks = 2}).o;
  };
  const auto reference = [](const Tensors& in) {
    return interval_attention_reference(in[0], in[1], in[2], {.window = 20, .sinks = 2}).o;
  };
  const auto either = [&](const Tensors& in) {
    return in[0].scalar_type() == at::kDouble ? reference(in) : attention(in);
  };
  const auto recurrent = [](const Tensors& in) {
    return in[0].scalar_type() == at::kDouble ? recurrence_reference(in[0], in[1], in[2]).o
                                              : recurrence(in[0], in[1], in[2]).o;
  };
  const Tensors inputs{normal({1, 70, 4, 32}, 1, at::kFloat), normal({1, 70, 2, 32}, 2, at::kFloat),
                       normal({1, 70, 2, 32}, 3, at::kFloat)};
  for (const auto dtype : kDtypes) {
    expect_same_on_device(either, inputs, dtype);
    expect_same_on_device(recurrent, inputs, dtype);
  }
}

// The first query is NaN: so are its rows of o and lse, which are not those of a query that sees nothing; no
// other row is.
void expect_nan_in_the_first_row(const IntervalAttentionOutput& found) {
  EXPECT_TRUE(found.o.select(1, 0).isnan().all().item<bool>());
  EXPECT_TRUE(found.lse.select(2, 0).isnan().all().item<bool>());
  EXPECT_FALSE(found.o.narrow(1, 1, found.o.size(1) - 1).isnan().any().item<bool>());
  EXPECT_FALSE(found.lse.narrow(2, 1, found.lse.size(2) - 1).isnan().any().item<bool>());
}

// Of tiles, of splits that decoding joins, of the dense kernels of sm_90a, and of lists of blocks.
TEST(CudaModules, NaNStaysInAttention) {
  for (const auto dtype : kDtypes)
    for (const int64_t queries : {150, 2})
      for (const int architecture : {80, 90}) {
        SCOPED_TRACE(::testing::Message() << dtype << " " << queries << " sm_" << architecture);
        at::Tensor q = normal({1, queries, 4, 64}, 1, dtype);
        q.select(1, 0).fill_(std::nan(""));
        const at::Tensor k = normal({1, 300, 2, 64}, 2, dtype), v = normal({1, 300, 2, 64}, 3, dtype);
        const InterpretedDevice device(architecture);
        expect_nan_in_the_first_row(interval_attention(q.clone(), k.clone(), v.clone(), {}));
        if (architecture == 90) continue;
        const BlockLists lists{.indices = at::zeros({1, 2, queries, 1}, at::kInt), .query_block = 1};
        const auto listed = block_attention(q.clone(), k.clone(), v.clone(), lists, {});
        expect_nan_in_the_first_row({listed.o, listed.lse});
      }
}

TEST(CudaModules, RefuseFloat64) {
  const InterpretedDevice device;
  const auto refuses = [](const auto& f) {
    try {
      f();
      ADD_FAILURE() << "accepted float64";
    } catch (const DtypeError& error) {
      EXPECT_NE(std::string(error.what()).find("dtype Double, expected"), std::string::npos) << error.what();
    }
  };
  const at::Tensor x = normal({4, 8}, 1);
  refuses([&] { rms_norm(x, {}, 1e-5); });
  refuses([&] { silu_product(x, x); });
  refuses([&] { chunked_cross_entropy(x, x, at::arange(4, at::kLong)); });
}

}  // namespace
}  // namespace longreach::test
