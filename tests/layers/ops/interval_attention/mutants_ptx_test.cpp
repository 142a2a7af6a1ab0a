// The mutation gate over the kernels of interval attention that ship.
#include "tests/layers/ops/cuda/kernel_cases.h"

namespace longreach::test {
namespace {

using ptx::kEverywhere;
using ptx::kNumbers;
using ptx::kWavefronts;
using ptx::Mutant;

constexpr double kLimit = 1e-2;  // as the tests of these kernels

constexpr const char* kForward = "interval_attention_forward_bf16_64_64";
constexpr const char* kQueryGradient = "interval_attention_query_gradient_bf16_64_64";
constexpr const char* kKeyGradient = "interval_attention_key_gradient_bf16_64_64";
constexpr const char* kDecode = "interval_attention_decode_bf16_64_64";
constexpr const char* kRowTerms = "attention_rows_row_terms_bf16";
constexpr const char* kMerge = "interval_attention_rows_merge_splits_bf16";

// The first product's A: registers 1 and 2 change places.
constexpr const char* kMma = "(mma.*, \\{)(%\\w+), (%\\w+), (%\\w+), (%\\w+)\\}, (\\{%\\w+, %\\w+\\})";
constexpr const char* kSwapped = "$1$2, $4, $3, $5}, $6";
constexpr const char* kPack = "(cvt\\.rn\\.bf16x2\\.f32\\s+\\S+) (\\S+), (\\S+);";
constexpr const char* kPackSwapped = "$1 $3, $2;";

// Barriers and waits by their place: of the sign's change (0, 1; not run here), of the loop (the next), after
// the loop, and between staging and storing.
TEST(AttentionMutants, Forward) {
  const AttentionLaunch launch(200, 200, 2);
  const Mutant mutants[] = {
      {"copies are not waited for", kForward, "cp\\.async\\.wait_group.*", "", 1, "unfinished cp.async"},
      {"one group too many may be under way", kForward, "wait_group 0;", "wait_group 1;", 1, "another warp"},
      {"no barrier before a tile is used", kForward, "bar\\.sync.*", "", 2, "another warp"},
      {"no barrier after the last tile", kForward, "bar\\.sync.*", "", 3, "another warp"},
      {"no barrier between staging and storing", kForward, "bar\\.sync.*", "", 4, "another warp"},
      {"registers of A change places", kForward, kMma, kSwapped, 0, kNumbers},
      {"values are not transposed", kForward, "\\.trans", "", 0, kNumbers},
      {"keys are transposed", kForward, "x4\\.shared", "x4.trans.shared", 0, kNumbers},
      {"halves of the weights change places", kForward, kPack, kPackSwapped, 0, kNumbers},
      {"a query sees one key more", kForward, "(add\\.s32.*), 1;", "$1, 2;", 10, kNumbers},
      {"nothing is masked", kForward, "selp\\.f32(\\s+\\S+) (\\S+), 0fFF800000.*", "mov.f32$1 $2;",
       kEverywhere, kNumbers},
      {"a shuffle reaches another row", kForward, "mov\\.u32(\\s+\\S+) 2;", "mov.u32$1 4;", 0, kNumbers},
      {"rows past the end are stored", kForward, "min\\.s32(\\s+\\S+) \\S+, 128;", "mov.u32$1 128;", 0,
       "out of bounds of global memory"},
      {"the staging is not swizzled", kForward, "(and\\.b32.*), 24;", "$1, 0;", kEverywhere, kWavefronts},
      {"sums begin with what was there", kForward, "mov\\.f32.*, 0f00000000;", "", 0, kNumbers},
      {"rows of q lie a head apart", kForward, "\\+-176\\]", "+-168]", 0, kNumbers},
      {"scores are not scaled", kForward, "mul\\.f32(\\s+\\S+) (%f\\d+), (%f\\d+);", "mov.f32$1 $3;", 0,
       kNumbers},
      {"intervals are not written", kForward, "st\\.shared\\.v2\\.u32.*", "", kEverywhere,
       "uninitialised shared memory"},
      {"a block works on its neighbour's tile", kForward, "mov\\.u32(\\s+\\S+) %ctaid\\.x;", "mov.u32$1 1;",
       0, "race between blocks"},
  };
  ptx::expect_all_caught(mutants, Kernels(file_of), kLimit, [&](const Kernels& kernels) {
    return launch.forward(kernels, {.path = interval::ForwardPath::kTiles});
  });
}

TEST(AttentionMutants, Backward) {
  const AttentionLaunch launch(200, 200, 2);
  const Mutant mutants[] = {
      {"dQ: one group too many may be under way", kQueryGradient, "wait_group 0;", "wait_group 1;", 0,
       "another warp"},
      {"dQ: no barrier before a tile is used", kQueryGradient, "bar\\.sync.*", "", 0, "another warp"},
      {"dQ: no barrier between staging and storing", kQueryGradient, "bar\\.sync.*", "", 2, "another warp"},
      {"dQ: halves of dS change places", kQueryGradient, kPack, kPackSwapped, 0, kNumbers},
      {"dK: copies are not waited for", kKeyGradient, "cp\\.async\\.wait_group.*", "", 0,
       "unfinished cp.async"},
      {"dK: no barrier before a tile is used", kKeyGradient, "bar\\.sync.*", "", 0, "another warp"},
      {"dK: staging of dK over dV that is still read", kKeyGradient, "bar\\.sync.*", "", 4, "another warp"},
      {"dK: registers of A change places", kKeyGradient, kMma, kSwapped, 0, kNumbers},
      {"dK: queries are not transposed", kKeyGradient, "\\.trans", "", 0, kNumbers},
      {"dK: lse and delta are not copied", kKeyGradient, "cp\\.async\\.ca.*", "", 1,
       "uninitialised shared memory"},
      {"dK: delta with the wrong sign", kKeyGradient, "sub\\.f32", "add.f32", 0, kNumbers},
      {"dK: all blocks add up one tile", kKeyGradient, "mov\\.u32(\\s+\\S+) %ctaid\\.x;", "mov.u32$1 1;", 0,
       "race between blocks"},
      {"delta: a shuffle too short", kRowTerms, "mov\\.u32(\\s+\\S+) 4;", "mov.u32$1 2;", 0, kNumbers},
  };
  ptx::expect_all_caught(mutants, Kernels(file_of), kLimit,
                         [&](const Kernels& kernels) { return launch.backward(kernels); });
}

TEST(AttentionMutants, Decode) {
  const AttentionLaunch launch(1, 512, 16);
  const Mutant mutants[] = {
      {"copies are not waited for", kDecode, "cp\\.async\\.wait_group.*", "", 1, "unfinished cp.async"},
      {"no barrier before a tile is used", kDecode, "bar\\.sync.*", "", 2, "another warp"},
      {"warps meet without a barrier", kDecode, "bar\\.sync.*", "", 4, "another warp"},
      {"no barrier between staging and storing", kDecode, "bar\\.sync.*", "", 5, "another warp"},
      {"a warp does not tell its maximum", kDecode, "st\\.shared\\.v2\\.f32.*", "", 0,
       "uninitialised shared memory"},
      {"both splits take the same place", kDecode, "mov\\.u32(\\s+\\S+) %ctaid\\.x;", "mov.u32$1 0;", 0,
       "race between blocks"},
      {"splits are not weighed", kMerge, "ex2\\.approx\\.ftz\\.f32(\\s+\\S+) (\\S+);", "mov.f32$1 $2;",
       kEverywhere, kNumbers},
  };
  ptx::expect_all_caught(mutants, Kernels(file_of), kLimit, [&](const Kernels& kernels) {
    return launch.forward(kernels, {.path = interval::ForwardPath::kDecode, .splits = 2});
  });
}

}  // namespace
}  // namespace longreach::test
