// The mutation gate over the small kernels that ship: norms, rotary embedding, SwiGLU, cross-entropy.
#include "tests/layers/ops/rows/row_cases.h"

namespace longreach::test {
namespace {

using ptx::kEverywhere;
using ptx::kNumbers;
using ptx::Mutant;

constexpr double kLimit = 1e-2;  // as the tests of these kernels

constexpr const char* kNorm = "rms_norm_bf16_bf16";
constexpr const char* kNormGrad = "rms_norm_grad_bf16_bf16";
constexpr const char* kColumnSums = "column_sums";
constexpr const char* kHalves = "rotary_halves_bf16";
constexpr const char* kNeighbours = "rotary_neighbours_bf16";
constexpr const char* kSilu = "silu_product_bf16";
constexpr const char* kSiluGrad = "silu_product_grad_bf16";
constexpr const char* kLoss = "cross_entropy_bf16";
constexpr const char* kLossSum = "loss_sum";

constexpr const char* kBlock = "mov\\.u32(\\s+\\S+) %ctaid\\.x;";
constexpr const char* kFirstBlock = "mov.u32$1 1;";
constexpr const char* kHalfWarp = "mov\\.u32(\\s+\\S+) 16;";
constexpr const char* kQuarterWarp = "mov.u32$1 8;";

TEST(RowMutants, Norm) {
  const NormLaunch launch;
  const Mutant mutants[] = {
      {"warps' sums meet without a barrier", kNorm, "bar\\.sync.*", "", 0, "another warp"},
      {"a shuffle reaches too near", kNorm, kHalfWarp, kQuarterWarp, 0, kNumbers},
      {"the weight is left out", kNorm, "mul\\.f32(\\s+\\S+) (%f\\d+), %f\\d+;", "mov.f32$1 $2;", 7,
       kNumbers},
      {"all blocks work on one row", kNorm, kBlock, kFirstBlock, 0, "race between blocks"},
      {"rstd is not stored", kNorm, "st\\.global\\.f32.*", "", 0, "was never written"},
      {"grad: sums are added to before they are cleared", kNormGrad, "bar\\.sync.*", "", 0, "another warp"},
      {"grad: warps' products meet without a barrier", kNormGrad, "bar\\.sync.*", "", 1, "another warp"},
      {"grad: scratch is overwritten while it is read", kNormGrad, "bar\\.sync.*", "", 2, "another warp"},
      {"grad: sums begin with what was there", kNormGrad, "st\\.shared\\.u32.*", "", kEverywhere,
       "uninitialised shared memory"},
      {"grad: the mean's part is added", kNormGrad, "sub\\.f32", "add.f32", 0, kNumbers},
      {"dweight: warps meet without a barrier", kColumnSums, "bar\\.sync.*", "", 0, "another warp"},
      {"dweight: a warp's part is left out", kColumnSums, "add\\.f32(\\s+\\S+) (%f\\d+), %f\\d+;",
       "mov.f32$1 $2;", 5, kNumbers},
  };
  ptx::expect_all_caught(mutants, Kernels(file_of), kLimit,
                         [&](const Kernels& kernels) { return launch.run(kernels); });
}

TEST(RowMutants, Rotary) {
  const RotaryLaunch halves(false), neighbours(true);
  const Mutant of_halves[] = {
      {"one feature of a pair is not turned", kHalves, "fma\\.rn\\.f32(\\s+\\S+) (\\S+), (\\S+), \\S+;",
       "mul.f32$1 $2, $3;", 0, kNumbers},
      {"all blocks work on one token", kHalves, kBlock, kFirstBlock, 0, "race between blocks"},
      {"the direction is left out", kHalves, "mul\\.f32(\\s+\\S+) (%f\\d+), (%f\\d+);", "neg.f32$1 $3;", 0,
       kNumbers},
  };
  ptx::expect_all_caught(of_halves, Kernels(file_of), kLimit,
                         [&](const Kernels& kernels) { return halves.run(kernels); });
  const Mutant of_neighbours[] = {
      {"one feature of a pair is not turned", kNeighbours, "fma\\.rn\\.f32(\\s+\\S+) (\\S+), (\\S+), \\S+;",
       "mul.f32$1 $2, $3;", 0, kNumbers},
      {"all blocks work on one token", kNeighbours, kBlock, kFirstBlock, 0, "race between blocks"},
  };
  ptx::expect_all_caught(of_neighbours, Kernels(file_of), kLimit,
                         [&](const Kernels& kernels) { return neighbours.run(kernels); });
}

TEST(RowMutants, SiluProduct) {
  const SiluLaunch launch;
  const Mutant mutants[] = {
      {"the sigmoid of -x", kSilu, "0fBFB8AA3B", "0f3FB8AA3B", 0, kNumbers},
      {"halves change places", kSilu, "(cvt\\.rn\\.bf16x2\\.f32\\s+\\S+) (\\S+), (\\S+);", "$1 $3, $2;", 0,
       kNumbers},
      {"grad: gate times sigmoid, not 1 - sigmoid", kSiluGrad, "sub\\.f32(\\s+\\S+) \\S+, (\\S+);",
       "mov.f32$1 $2;", 0, kNumbers},
      {"grad: all blocks work on one row", kSiluGrad, kBlock, kFirstBlock, 0, "race between blocks"},
  };
  ptx::expect_all_caught(mutants, Kernels(file_of), kLimit,
                         [&](const Kernels& kernels) { return launch.run(kernels); });
}

TEST(RowMutants, CrossEntropy) {
  const LossLaunch launch;
  const Mutant mutants[] = {
      {"warps' maxima meet without a barrier", kLoss, "bar\\.sync.*", "", 0, "another warp"},
      {"a shuffle reaches too near", kLoss, kHalfWarp, kQuarterWarp, 0, kNumbers},
      {"rows without a label count", kLoss, "setp\\.eq\\.s64", "setp.ne.s64", 0, kNumbers},
      {"the label is not taken off", kLoss, "setp\\.eq\\.s64", "setp.ne.s64", 2, kNumbers},
      {"lse in base 2", kLoss, "0f3F317218", "0f3F800000", kEverywhere, kNumbers},
      {"all blocks work on one row", kLoss, kBlock, kFirstBlock, 0, "race between blocks"},
      {"sum: warps meet without a barrier", kLossSum, "bar\\.sync.*", "", 0, "another warp"},
      {"sum: without z-loss", kLossSum, "fma\\.rn\\.f64(\\s+\\S+) \\S+, \\S+, (\\S+);", "mov.f64$1 $2;",
       kEverywhere, kNumbers},
  };
  ptx::expect_all_caught(mutants, Kernels(file_of), kLimit,
                         [&](const Kernels& kernels) { return launch.run(kernels); });
}

}  // namespace
}  // namespace longreach::test
