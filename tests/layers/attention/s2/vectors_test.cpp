// Block attention on the reference vectors of S2-Attention: outputs and gradients computed by others over
// static lists, one a query head or one for all.
#include <ATen/ops/full.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "checkpoints/safetensors.h"
#include "layers/ops/block_attention/block_attention.h"
#include "tests/support/random_tensors.h"
#include "tests/support/vectors.h"

namespace longreach::test {
namespace {

// int32 [1, H, rows, blocks] from a mask [H, rows, blocks].
at::Tensor lists_of(const at::Tensor& mask) {
  const int64_t blocks = mask.size(2);
  at::Tensor lists = at::full({1, mask.size(0), mask.size(1), blocks}, -1, at::kInt);
  const at::Tensor dense = mask.to(at::kInt).contiguous();
  const int32_t* keep = dense.const_data_ptr<int32_t>();
  int32_t* entry = lists.mutable_data_ptr<int32_t>();
  for (int64_t i = 0; i < dense.numel(); ++i)
    if (keep[i] != 0) entry[i] = static_cast<int32_t>(i % blocks);
  return lists;
}

class S2Vector : public testing::TestWithParam<std::string> {};

TEST_P(S2Vector, OutputsAndGradients) {
  const SafetensorsFile file(GetParam());
  const auto config = nlohmann::json::parse(file.metadata().at("config"));
  const auto block = config.at("block_size").get<int64_t>();
  const BlockLists lists{.indices = lists_of(file.tensor("out.block_mask")),
                         .query_block = block,
                         .key_block = block,
                         .causal = config.at("causal").get<bool>()};
  const BlockAttentionOptions options{.scale = config.at("sm_scale").get<double>()};
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    std::vector<at::Tensor> inputs;
    for (const char* name : {"in.q", "in.k", "in.v"})
      inputs.push_back(file.tensor(name).to(dtype).requires_grad_());
    const auto operation = dtype == at::kDouble ? block_attention_reference : block_attention;
    const auto out = operation(inputs[0], inputs[1], inputs[2], lists, options);
    const auto grads = torch::autograd::grad({out.o}, inputs, {file.tensor("gout.o").to(dtype)});
    // Large logits magnify the rounding of the inputs to bfloat16.
    const double limit = dtype == at::kDouble ? 1e-9 : dtype == at::kFloat ? 5e-6 : 1e-1;
    EXPECT_LE(relative_error(out.o.detach(), file.tensor("out.o")), limit) << dtype;
    EXPECT_LE(relative_error(out.lse.detach(), file.tensor("out.lse")), limit) << dtype;
    EXPECT_LE(relative_error(grads[0], file.tensor("grad.q")), limit) << dtype;
    EXPECT_LE(relative_error(grads[1], file.tensor("grad.k")), limit) << dtype;
    EXPECT_LE(relative_error(grads[2], file.tensor("grad.v")), limit) << dtype;
  }
}

INSTANTIATE_TEST_SUITE_P(Files, S2Vector, testing::ValuesIn(vector_files("s2_attention")),
                         [](const auto& info) { return std::filesystem::path(info.param).stem().string(); });

}  // namespace
}  // namespace longreach::test
