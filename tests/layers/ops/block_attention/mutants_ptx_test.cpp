// The mutation gate over the kernels of block attention that ship.
#include "tests/layers/ops/block_attention/kernel_cases.h"

namespace longreach::test {
namespace {

using ptx::kEverywhere;
using ptx::kNumbers;
using ptx::kWavefronts;
using ptx::Mutant;

constexpr double kLimit = 1e-2;  // as the tests of these kernels

constexpr const char* kForward = "block_attention_forward_128_bf16_64_64";
constexpr const char* kGroup = "block_attention_forward_16_bf16_64_64";
constexpr const char* kStatistics = "block_attention_statistics_bf16_64";
constexpr const char* kQueryGradient = "block_attention_query_gradient_64_bf16_64_64";
constexpr const char* kKeyGradient = "block_attention_key_gradient_64_bf16_64_64";
constexpr const char* kSmallBlocks = "block_attention_key_gradient_32_bf16_64_64";
constexpr const char* kCount = "block_attention_transpose_count";
constexpr const char* kScan = "block_attention_transpose_scan";
constexpr const char* kFill = "block_attention_transpose_fill";

// The first product's A: registers 1 and 2 change places.
constexpr const char* kMma = "(mma.*, \\{)(%\\w+), (%\\w+), (%\\w+), (%\\w+)\\}, (\\{%\\w+, %\\w+\\})";
constexpr const char* kSwapped = "$1$2, $4, $3, $5}, $6";
constexpr const char* kPack = "(cvt\\.rn\\.bf16x2\\.f32\\s+\\S+) (\\S+), (\\S+);";
constexpr const char* kPackSwapped = "$1 $3, $2;";
constexpr const char* kBallot = "vote\\.sync\\.ballot\\.b32(\\s+\\S+) .*";

// Barriers and waits by their place: of the sign's change (0, 1; not run here), of the loop, after it, before
// storing.
TEST(BlockMutants, Forward) {
  const BlockLaunch launch(200, 64, 64);
  const Mutant mutants[] = {
      {"copies are not waited for", kForward, "cp\\.async\\.wait_group.*", "", 1, "unfinished cp.async"},
      {"one group too many may be under way", kForward, "wait_group 0;", "wait_group 1;", 1, "another warp"},
      {"no barrier before a tile is used", kForward, "bar\\.sync.*", "", 2, "another warp"},
      {"no barrier after the last tile", kForward, "bar\\.sync.*", "", 3, "another warp"},
      {"no barrier between staging and storing", kForward, "bar\\.sync.*", "", 4, "another warp"},
      {"registers of A change places", kForward, kMma, kSwapped, 0, kNumbers},
      {"values are not transposed", kForward, "\\.trans", "", 0, kNumbers},
      {"halves of the weights change places", kForward, kPack, kPackSwapped, 0, kNumbers},
      {"nothing is masked", kForward, "selp\\.f32(\\s+\\S+) (\\S+), 0fFF800000.*", "mov.f32$1 $2;",
       kEverywhere, kNumbers},
      {"holes count as blocks", kForward, kBallot, "mov.u32$1 15;", 0, "out of bounds of global memory"},
      {"one entry for all of a tile", kForward, "popc\\.b32(\\s+\\S+) .*", "mov.u32$1 0;", kEverywhere,
       kNumbers},
      {"rows past the end are stored", kForward, "min\\.s32(\\s+\\S+) \\S+, 128;", "mov.u32$1 128;", 0,
       "out of bounds of global memory"},
      {"the staging is not swizzled", kForward, "(and\\.b32.*), 24;", "$1, 0;", kEverywhere, kWavefronts},
      {"a block works on its neighbour's tile", kForward, "mov\\.u32(\\s+\\S+) %ctaid\\.x;", "mov.u32$1 1;",
       0, "race between blocks"},
      {"statistics: no barrier before a tile is used", kStatistics, "bar\\.sync.*", "", 1, "another warp"},
      {"statistics: the last sums are added up too early", kStatistics, "bar\\.sync.*", "", 2,
       "another warp"},
      {"statistics: a warp does not tell its sums", kStatistics, "st\\.shared\\.v2\\.f32.*", "", 0,
       "uninitialised shared memory"},
      {"statistics: the least in place of the largest", kStatistics, "max\\.f32", "min.f32", 0, kNumbers},
      {"statistics: a shuffle too short", kStatistics, "(mov\\.u32\\s+\\S+) 16;", "$1 8;", 1, kNumbers},
  };
  ptx::expect_all_caught(mutants, Kernels(block_file_of), kLimit,
                         [&](const Kernels& kernels) { return launch.forward(kernels); });
}

// Sixteen rows: small key blocks fill a tile together, four warps share out its keys.
TEST(BlockMutants, ForwardOfGroups) {
  const BlockLaunch launch(100, 4, 16);
  const Mutant mutants[] = {
      {"no barrier before a tile is used", kGroup, "bar\\.sync.*", "", 2, "another warp"},
      {"warps meet without a barrier", kGroup, "bar\\.sync.*", "", 4, "another warp"},
      {"a warp does not tell its maximum", kGroup, "st\\.shared\\.v2\\.f32.*", "", 0,
       "uninitialised shared memory"},
      {"warps take the pieces of others", kGroup, "selp\\.b32(\\s+\\S+) (\\S+), (\\S+), (\\S+);",
       "mov.u32$1 $3;", kEverywhere, kNumbers},
  };
  ptx::expect_all_caught(mutants, Kernels(block_file_of), kLimit,
                         [&](const Kernels& kernels) { return launch.forward(kernels); });
}

TEST(BlockMutants, Backward) {
  const BlockLaunch launch(200, 64, 64);
  const Mutant mutants[] = {
      {"dQ: one group too many may be under way", kQueryGradient, "wait_group 0;", "wait_group 1;", 0,
       "another warp"},
      {"dQ: no barrier before a tile is used", kQueryGradient, "bar\\.sync.*", "", 0, "another warp"},
      {"dQ: no barrier between staging and storing", kQueryGradient, "bar\\.sync.*", "", 2, "another warp"},
      {"dQ: halves of dS change places", kQueryGradient, kPack, kPackSwapped, 0, kNumbers},
      {"dQ: a block works on its neighbour's tile", kQueryGradient, "mov\\.u32(\\s+\\S+) %ctaid\\.x;",
       "mov.u32$1 2;", 0, "race between blocks"},
      {"dK: columns are read before they are written", kKeyGradient, "bar\\.sync.*", "", 0, "another warp"},
      {"dK: copies are not waited for", kKeyGradient, "cp\\.async\\.wait_group.*", "", 0,
       "unfinished cp.async"},
      {"dK: no barrier before a tile is used", kKeyGradient, "bar\\.sync.*", "", 1, "another warp"},
      {"dK: staging of dK over dV that is still read", kKeyGradient, "bar\\.sync.*", "", 4, "another warp"},
      {"dK: registers of A change places", kKeyGradient, kMma, kSwapped, 0, kNumbers},
      {"dK: lse and delta are not copied", kKeyGradient, "cp\\.async\\.ca.*", "", 1,
       "uninitialised shared memory"},
      {"dK: delta with the wrong sign", kKeyGradient, "sub\\.f32", "add.f32", 0, kNumbers},
      {"dK: all blocks add up one tile", kKeyGradient, "mov\\.u32(\\s+\\S+) %ctaid\\.x;", "mov.u32$1 1;", 0,
       "race between blocks"},
      {"transpose: entries count twice", kCount, "(atom\\.global\\.add.*), 1;", "$1, 2;", kEverywhere,
       "uninitialised global memory"},
      {"transpose: counters are not cleared", kCount, "st\\.global.*", "", kEverywhere,
       "uninitialised global memory"},
      {"transpose: warps scan without a barrier", kScan, "bar\\.sync.*", "", 0, "another warp"},
      {"transpose: all entries take one place", kFill, "(atom\\.global\\.add.*), 1;", "$1, 0;", kEverywhere,
       "uninitialised global memory"},
  };
  ptx::expect_all_caught(mutants, Kernels(block_file_of), kLimit,
                         [&](const Kernels& kernels) { return launch.backward(kernels); });
}

// Tiles of 32 keys: two warps share out the columns of each tile.
TEST(BlockMutants, BackwardOfSmallBlocks) {
  const BlockLaunch launch(100, 4, 32);
  const Mutant mutants[] = {
      {"no barrier before a tile is used", kSmallBlocks, "bar\\.sync.*", "", 1, "another warp"},
      {"no barrier between staging and storing", kSmallBlocks, "bar\\.sync.*", "", 3, "another warp"},
      {"one warp's sums are left out", kSmallBlocks, "add\\.f32(\\s+\\S+) (\\S+), (\\S+);", "mov.f32$1 $2;",
       kEverywhere, kNumbers},
  };
  ptx::expect_all_caught(mutants, Kernels(block_file_of), kLimit,
                         [&](const Kernels& kernels) { return launch.backward(kernels); });
}

}  // namespace
}  // namespace longreach::test
