// The mutation gate over the fp16 and fp32 kernels of interval attention: what their types add to the code
// that mutants_ptx_test.cpp breaks for bf16 (conversions, three TF32 products), and their own waits and
// barriers.
#include "tests/layers/ops/cuda/kernel_cases.h"

namespace longreach::test {
namespace {

using ptx::kEverywhere;
using ptx::kNumbers;
using ptx::Mutant;

constexpr double kHalfLimit = 2e-3, kFloatLimit = 1e-5;  // as the tests of these kernels

constexpr const char* kMma = "(mma.*, \\{)(%\\w+), (%\\w+), (%\\w+), (%\\w+)\\}, (\\{%\\w+, %\\w+\\})";
constexpr const char* kSwapped = "$1$2, $4, $3, $5}, $6";
constexpr const char* kPack = "(cvt\\.rn\\.f16x2\\.f32\\s+\\S+) (\\S+), (\\S+);";
constexpr const char* kPackSwapped = "$1 $3, $2;";
constexpr const char* kWait = "cp\\.async\\.wait_group.*";
constexpr const char* kBarrier = "bar\\.sync.*";
constexpr const char* kSplit = "sub\\.f32(\\s+\\S+) \\S+, \\S+;";  // x - hi, the low part
constexpr const char* kNoLowPart = "mov.f32$1 0f00000000;";

TEST(AttentionMutants, ForwardInFloat16) {
  constexpr const char* kKernel = "interval_attention_forward_fp16_64_64";
  const AttentionLaunch launch(200, 200, 2, DType::kFloat16);
  const Mutant mutants[] = {
      {"copies are not waited for", kKernel, kWait, "", 1, "unfinished cp.async"},
      {"no barrier before a tile is used", kKernel, kBarrier, "", 2, "another warp"},
      {"registers of A change places", kKernel, kMma, kSwapped, 0, kNumbers},
      {"halves of the weights change places", kKernel, kPack, kPackSwapped, 0, kNumbers},
      {"values are not transposed", kKernel, "\\.trans", "", 0, kNumbers},
      {"weights are rounded to bf16", kKernel, "cvt\\.rn\\.f16x2", "cvt.rn.bf16x2", 0, kNumbers},
  };
  ptx::expect_all_caught(mutants, Kernels(file_of), kHalfLimit, [&](const Kernels& kernels) {
    return launch.forward(kernels, {.path = interval::ForwardPath::kTiles});
  });
}

TEST(AttentionMutants, BackwardInFloat16) {
  constexpr const char *kQuery = "interval_attention_query_gradient_fp16_64_64",
                       *kKey = "interval_attention_key_gradient_fp16_64_64";
  const AttentionLaunch launch(200, 200, 2, DType::kFloat16);
  const Mutant mutants[] = {
      {"dQ: no barrier before a tile is used", kQuery, kBarrier, "", 0, "another warp"},
      {"dQ: halves of dS change places", kQuery, kPack, kPackSwapped, 0, kNumbers},
      {"dK: copies are not waited for", kKey, kWait, "", 0, "unfinished cp.async"},
      {"dK: queries are not transposed", kKey, "\\.trans", "", 0, kNumbers},
      {"dK: delta with the wrong sign", kKey, "sub\\.f32", "add.f32", 0, kNumbers},
  };
  ptx::expect_all_caught(mutants, Kernels(file_of), kHalfLimit,
                         [&](const Kernels& kernels) { return launch.backward(kernels); });
}

TEST(AttentionMutants, ForwardInFloat32) {
  constexpr const char* kKernel = "interval_attention_forward_fp32_64_64";
  const AttentionLaunch launch(130, 130, 2, DType::kFloat32);
  const Mutant mutants[] = {
      {"copies are not waited for", kKernel, kWait, "", 1, "unfinished cp.async"},
      {"no barrier before a tile is used", kKernel, kBarrier, "", 2, "another warp"},
      {"no barrier between staging and storing", kKernel, kBarrier, "", 4, "another warp"},
      {"registers of A change places", kKernel, kMma, kSwapped, 2, kNumbers},
      {"registers of A's low part change places", kKernel, kMma, kSwapped, 0, kNumbers},
      {"TF32 alone, without low parts", kKernel, kSplit, kNoLowPart, kEverywhere, kNumbers},
      {"one product of high and low is left out", kKernel, "mma\\.sync.*", "", 1, kNumbers},
  };
  ptx::expect_all_caught(mutants, Kernels(file_of), kFloatLimit, [&](const Kernels& kernels) {
    return launch.forward(kernels, {.path = interval::ForwardPath::kTiles});
  });
}

TEST(AttentionMutants, BackwardInFloat32) {
  constexpr const char *kQuery = "interval_attention_query_gradient_fp32_64_64",
                       *kKey = "interval_attention_key_gradient_fp32_64_64";
  const AttentionLaunch launch(130, 130, 2, DType::kFloat32);
  const Mutant mutants[] = {
      {"dQ: no barrier before a tile is used", kQuery, kBarrier, "", 0, "another warp"},
      {"dQ: registers of A change places", kQuery, kMma, kSwapped, 2, kNumbers},
      {"dK: copies are not waited for", kKey, kWait, "", 0, "unfinished cp.async"},
      {"dK: registers of A change places", kKey, kMma, kSwapped, 2, kNumbers},
      {"dK: a low part is left out", kKey, kSplit, kNoLowPart, 0, kNumbers},
  };
  ptx::expect_all_caught(mutants, Kernels(file_of), kFloatLimit,
                         [&](const Kernels& kernels) { return launch.backward(kernels); });
}

void expect_decode_mutants_caught(DType dtype, const char* kernel, const char* merge, double limit) {
  const AttentionLaunch launch(1, 512, 16, dtype);
  const Mutant mutants[] = {
      {"copies are not waited for", kernel, kWait, "", 1, "unfinished cp.async"},
      {"warps meet without a barrier", kernel, kBarrier, "", 4, "another warp"},
      {"registers of A change places", kernel, kMma, kSwapped, dtype == DType::kFloat32 ? 2 : 0, kNumbers},
      {"splits are not weighed", merge, "ex2\\.approx\\.ftz\\.f32(\\s+\\S+) (\\S+);", "mov.f32$1 $2;",
       kEverywhere, kNumbers},
  };
  ptx::expect_all_caught(mutants, Kernels(file_of), limit, [&](const Kernels& kernels) {
    return launch.forward(kernels, {.path = interval::ForwardPath::kDecode, .splits = 2});
  });
}

TEST(AttentionMutants, DecodeInFloat16) {
  expect_decode_mutants_caught(DType::kFloat16, "interval_attention_decode_fp16_64_64",
                               "interval_attention_rows_merge_splits_fp16", kHalfLimit);
}
TEST(AttentionMutants, DecodeInFloat32) {
  expect_decode_mutants_caught(DType::kFloat32, "interval_attention_decode_fp32_64_64",
                               "interval_attention_rows_merge_splits_fp32", kFloatLimit);
}

}  // namespace
}  // namespace longreach::test
