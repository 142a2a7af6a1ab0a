// Launch plans of interval attention without a device: which kernels, how many blocks, what is refused.
#include "layers/ops/interval_attention/cuda/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "core/error.h"

namespace longreach::interval {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

// Dense tensors; addresses that nobody reads.
Params dense_params(DType dtype, int64_t batches, int64_t queries, int64_t keys, int64_t heads,
                    int64_t key_heads, int64_t size) {
  const auto view = [&](uintptr_t address, int64_t tokens, int64_t head_count) {
    return Strided{reinterpret_cast<void*>(address), tokens * head_count * size, head_count * size, size};
  };
  Params p{};
  p.dtype = dtype;
  p.batches = batches, p.queries = queries, p.keys = keys, p.heads = heads;
  p.key_heads = p.value_heads = key_heads, p.qk_size = p.v_size = size;
  p.scale = 1.0f;
  p.q = view(0x1000000, queries, heads), p.k = view(0x2000000, keys, key_heads);
  p.v = view(0x3000000, keys, key_heads), p.o = view(0x4000000, queries, heads);
  p.lse = reinterpret_cast<float*>(0x5000000);
  p.causal = true;
  p.documents = 1;
  return p;
}

Gradients dense_gradients(const Params& p) { return {p.o, nullptr, p.q, p.k, p.v}; }

// Without the operator's name; the passes over rows that all attention shares keep theirs.
std::vector<std::string> kernels(const cuda::Plan& plan) {
  const std::string own = "interval_attention_";
  std::vector<std::string> names;
  for (const cuda::Launch& launch : plan.launches)
    names.push_back(launch.kernel.starts_with(own) ? launch.kernel.substr(own.size()) : launch.kernel);
  return names;
}

TEST(IntervalAttentionPlan, DenseForwardIsOneKernelWithoutWorkSpace) {
  const cuda::Plan plan = plan_forward(dense_params(DType::kBFloat16, 2, 1000, 1000, 8, 2, 128), nullptr);
  EXPECT_THAT(kernels(plan), ElementsAre("forward_bf16_128_128"));
  EXPECT_EQ(plan.launches[0].grid.x, 8u * 8 * 2);
  EXPECT_EQ(plan.workspace_bytes, 0u);
}

TEST(IntervalAttentionPlan, SizesBetweenTheBuiltOnesAreFilledUp) {
  EXPECT_THAT(kernels(plan_forward(dense_params(DType::kFloat16, 1, 1000, 1000, 1, 1, 80), nullptr)),
              ElementsAre("forward_fp16_96_96"));
  EXPECT_THAT(kernels(plan_forward(dense_params(DType::kFloat32, 1, 1000, 1000, 1, 1, 80), nullptr)),
              ElementsAre("forward_fp32_128_128"));
  const HeadDims dims = built_head_dims(DType::kBFloat16, 190, 100);
  EXPECT_EQ(dims.qk, 192);
  EXPECT_EQ(dims.v, 128);
}

TEST(IntervalAttentionPlan, BackwardKernelsInOrder) {
  Params p = dense_params(DType::kBFloat16, 1, 300, 300, 4, 2, 64);
  EXPECT_THAT(
      kernels(plan_backward(p, dense_gradients(p), nullptr)),
      ElementsAre("attention_rows_row_terms_bf16", "query_gradient_bf16_64_64", "key_gradient_bf16_64_64"));
  p = dense_params(DType::kBFloat16, 1, 300, 300, 4, 2, 256);
  p.value_heads = 1;
  EXPECT_THAT(kernels(plan_backward(p, dense_gradients(p), nullptr)),
              ElementsAre("attention_rows_row_terms_bf16", "query_gradient_bf16_256_256",
                          "key_gradient_k_bf16_256_256", "key_gradient_v_bf16_256_256",
                          "attention_rows_sum_heads_bf16"));
}

TEST(IntervalAttentionPlan, MisalignedRowsAreCopiedFirst) {
  Params p = dense_params(DType::kBFloat16, 1, 300, 300, 4, 2, 64);
  p.k.data = static_cast<char*>(p.k.data) + 2;
  EXPECT_THAT(kernels(plan_forward(p, nullptr)),
              ElementsAre("attention_rows_align_16", "forward_bf16_64_64"));
}

TEST(IntervalAttentionPlan, DecodingSplitsTheKeysToFillTheDevice) {
  const Params p = dense_params(DType::kBFloat16, 1, 1, 65536, 32, 8, 128);
  const cuda::Plan plan = plan_forward(p, nullptr, {.multiprocessors = 100});
  EXPECT_THAT(kernels(plan), ElementsAre("decode_bf16_128_128", "rows_merge_splits_bf16"));
  EXPECT_EQ(plan.launches[0].grid.x, 8u * 25);
  const Params brief = dense_params(DType::kBFloat16, 1, 1, 200, 32, 8, 128);
  EXPECT_THAT(kernels(plan_forward(brief, nullptr)), ElementsAre("decode_bf16_128_128"));
}

TEST(IntervalAttentionPlan, PackedDocumentsBecomeTiles) {
  Params p = dense_params(DType::kBFloat16, 1, 300, 300, 4, 2, 64);
  const std::array<int32_t, 5> bounds{0, 0, 129, 300, 300};
  p.cu_queries = p.cu_keys = bounds.data();
  p.documents = 4;
  const cuda::Plan plan = plan_forward(p, nullptr);
  EXPECT_EQ(plan.upload.size(), 4u * 32);  // 129 and 171 rows: two tiles each
  EXPECT_EQ(plan.launches[0].grid.x, 4u * 4);
  EXPECT_GE(plan.workspace_bytes, plan.upload.size());
}

// Compute capability 9.0 has kernels of its own for what they can do; everything else keeps those for all
// devices.
TEST(IntervalAttentionPlan, Sm90TakesDenseProblems) {
  const CudaOptions sm90{.architecture = 90};
  for (const int64_t size : {64, 128}) {
    const Params p = dense_params(DType::kBFloat16, 2, 1000, 900, 8, 2, size);
    const cuda::Plan forward = plan_forward(p, nullptr, sm90);
    EXPECT_THAT(kernels(forward), ElementsAre("dense_forward_bf16_" + std::to_string(size)));
    EXPECT_EQ(forward.launches[0].grid.x, 8u * 8 * 2);
    EXPECT_EQ(forward.workspace_bytes, 0u);
    const cuda::Plan backward = plan_backward(p, dense_gradients(p), nullptr, sm90);
    EXPECT_THAT(kernels(backward), ElementsAre("attention_rows_row_terms_bf16",
                                               "dense_query_gradient_bf16_" + std::to_string(size),
                                               "dense_key_gradient_bf16_" + std::to_string(size)));
    EXPECT_EQ(backward.launches[2].grid.x, 8u * 2 * 2);
  }
}

TEST(IntervalAttentionPlan, Sm90LeavesOtherProblemsToTheKernelsOfAllDevices) {
  const Params dense = dense_params(DType::kBFloat16, 2, 1000, 1000, 8, 2, 64);
  const auto expect_general = [](const Params& p, int architecture = 90) {
    const std::string name = kernels(plan_forward(p, nullptr, {.architecture = architecture})).back();
    EXPECT_THAT(name, testing::StartsWith("forward_"));
  };
  expect_general(dense, 80);
  expect_general(dense, 100);
  expect_general(dense_params(DType::kFloat32, 2, 1000, 1000, 8, 2, 64));
  expect_general(dense_params(DType::kBFloat16, 2, 1000, 1000, 8, 2, 96));
  const std::array<int32_t, 3> bounds{0, 500, 1000};
  const auto changed = [&](auto change) {
    Params p = dense;
    change(p);
    return p;
  };
  expect_general(changed([](Params& p) { p.window = 100; }));
  expect_general(changed([](Params& p) { p.sinks = 1; }));
  expect_general(changed([](Params& p) { p.scale = -1.0f; }));
  expect_general(changed([](Params& p) { p.keys = 0; }));
  expect_general(changed([](Params& p) { p.v.token += 1; }));
  expect_general(changed([](Params& p) { p.o.data = static_cast<char*>(p.o.data) + 2; }));
  expect_general(changed([](Params& p) { p.k.batch = -p.k.batch; }));
  expect_general(changed([](Params& p) { p.lo = p.hi = reinterpret_cast<const int32_t*>(0x6000000); }));
  expect_general(changed([&](Params& p) {
    p.batches = 1, p.documents = 2;
    p.cu_queries = p.cu_keys = bounds.data();
  }));
  // Groups of dk and dv that differ are summed from parts, which the dense kernels do not make.
  const Params p = changed([](Params& x) { x.value_heads = 1; });
  EXPECT_THAT(kernels(plan_forward(p, nullptr, {.architecture = 90})), ElementsAre("dense_forward_bf16_64"));
  EXPECT_THAT(kernels(plan_backward(p, dense_gradients(p), nullptr, {.architecture = 90})),
              testing::Contains("query_gradient_bf16_64_64"));
}

TEST(IntervalAttentionPlan, NothingToDoLaunchesNothing) {
  EXPECT_TRUE(plan_forward(dense_params(DType::kBFloat16, 0, 300, 300, 4, 2, 64), nullptr).launches.empty());
  EXPECT_TRUE(plan_forward(dense_params(DType::kBFloat16, 1, 0, 300, 4, 2, 64), nullptr).launches.empty());
  const Params p = dense_params(DType::kBFloat16, 1, 0, 300, 4, 2, 64);
  EXPECT_THAT(kernels(plan_backward(p, dense_gradients(p), nullptr)), ElementsAre("key_gradient_bf16_64_64"));
}

TEST(IntervalAttentionPlan, HeadDimsThatAreNotBuilt) {
  EXPECT_THAT(
      [] { built_head_dims(DType::kBFloat16, 64, 512); },
      ThrowsMessage<ShapeError>(HasSubstr("head dimensions 64/512; CUDA kernels in bf16 are built for 32/32, "
                                          "64/64, 96/96, 128/128, 192/128, 192/192, 256/256")));
  EXPECT_THAT([] { built_head_dims(DType::kFloat32, 300, 64); },
              ThrowsMessage<ShapeError>(HasSubstr("fp32 are built for 64/64, 128/128, 256/256")));
  EXPECT_THAT([] { plan_forward(dense_params(static_cast<DType>(7), 1, 9, 9, 1, 1, 64), nullptr); },
              ThrowsMessage<DtypeError>(HasSubstr("built for float32, bfloat16 and float16")));
}

TEST(IntervalAttentionPlan, TooManyTokens) {
  EXPECT_THAT([] { plan_forward(dense_params(DType::kBFloat16, 1, int64_t{1} << 31, 9, 1, 1, 64), nullptr); },
              ThrowsMessage<ShapeError>(HasSubstr("2147483648 tokens")));
}

}  // namespace
}  // namespace longreach::interval
