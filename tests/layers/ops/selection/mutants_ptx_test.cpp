// The mutation gate over the kernels of selection that ship, and their traffic of shared and global memory.
#include "tests/layers/ops/selection/kernel_cases.h"

namespace longreach::test {
namespace {

using ptx::kEverywhere;
using ptx::kNumbers;
using ptx::kWavefronts;
using ptx::Mutant;

constexpr double kLimit = 1e-2;  // lists are right or wrong; pools are bf16

constexpr const char* kSelect = "selection_select_bf16_64";
constexpr const char* kChoose = "selection_choose";
constexpr const char* kPool = "selection_pool_bf16";
constexpr const char* kGradient = "selection_pool_gradient_bf16";

// The first product's A: registers 1 and 2 change places.
constexpr const char* kMma = "(mma.*, \\{)(%\\w+), (%\\w+), (%\\w+), (%\\w+)\\}, (\\{%\\w+, %\\w+\\})";
constexpr const char* kSwapped = "$1$2, $4, $3, $5}, $6";
constexpr const char* kBlock = "mov\\.u32(\\s+\\S+) %ctaid\\.x;";

// Windows of 8 in strides of 4, blocks of 16: three tiles of windows, five of rows, the last one short.
SelectionProblem token_windows() { return {.tokens = 600, .query_block = 8}; }
// A list over heads of two key heads: two chunks a tile of windows. Windows are the blocks.
SelectionProblem two_chunks() {
  SelectionProblem c{
      .tokens = 1200, .heads = 4, .key_heads = 2, .query_block = 16, .width = 16, .stride = 16};
  c.visible = selection::CudaVisible::started;
  return c;
}

// Barriers and waits by their place: of the first walk, after it, of the second, of chunks, before votes are
// taken, before they are used, after the second walk.
TEST(SelectionMutants, Select) {
  const SelectLaunch launch(token_windows());
  const Mutant mutants[] = {
      {"first walk: copies are not waited for", kSelect, "cp\\.async\\.wait_group.*", "", 0,
       "unfinished cp.async"},
      {"second walk: copies are not waited for", kSelect, "cp\\.async\\.wait_group.*", "", 2,
       "unfinished cp.async"},
      {"first walk: no barrier before a tile is used", kSelect, "bar\\.sync.*", "", 0, "another warp"},
      {"second walk: no barrier before a tile is used", kSelect, "bar\\.sync.*", "", 2, "another warp"},
      {"votes are taken before shares are there", kSelect, "bar\\.sync.*", "", 4, "another warp"},
      {"votes are used before they are there", kSelect, "bar\\.sync.*", "", 5, "another warp"},
      {"rows are chosen before the last tile", kSelect, "bar\\.sync.*", "", 6, "another lane writes"},
      {"registers of A change places", kSelect, kMma, kSwapped, 0, kNumbers},
      {"windows that are not seen have a share", kSelect, "selp\\.f32(\\s+\\S+) (\\S+), 0f00000000, (\\S+);",
       "mov.f32$1 $2;", kEverywhere, kNumbers},
      {"two of a row's four lanes join their sums", kSelect, "(mov\\.u32\\s+\\S+) 2;", "$1 1;", 0, kNumbers},
      {"a row's statistics are not told", kSelect,
       "st\\.shared\\.v2\\.f32\\s+\\[(%r\\d+)\\], \\{(%f\\d+), (%f\\d+)\\};", "", 0,
       "uninitialised shared memory"},
      {"shares are staged without a swizzle", kSelect, "(and\\.b32.*), 24;", "$1, 0;", kEverywhere,
       kWavefronts},
      {"overlaps are not weighed", kSelect, "div\\.rn\\.f32(\\s+\\S+) (\\S+), (\\S+);",
       "mov.f32$1 0f3F800000;", kEverywhere, kNumbers},
      {"a block works on its neighbour's tile", kSelect, kBlock, "mov.u32$1 1;", 0, "race between blocks"},
  };
  ptx::expect_all_caught(mutants, Kernels(selection_file_of), kLimit,
                         [&](const Kernels& kernels) { return launch.run(kernels); });
}

TEST(SelectionMutants, SelectInChunks) {
  const SelectLaunch launch(two_chunks());
  const Mutant mutants[] = {
      {"a chunk's copies are not waited for", kSelect, "cp\\.async\\.wait_group.*", "", 3,
       "unfinished cp.async"},
      {"no barrier before a chunk is used", kSelect, "bar\\.sync.*", "", 3, "another warp"},
      {"rows are chosen before the last votes", kSelect, "bar\\.sync.*", "", 6, "another warp"},
      {"the next chunk's queries come too early", kSelect, "bar\\.sync.*", "", 1, "another warp"},
  };
  ptx::expect_all_caught(mutants, Kernels(selection_file_of), kLimit,
                         [&](const Kernels& kernels) { return launch.run(kernels); });
}

SelectionProblem rule(int64_t top_k, double mass, double threshold) {
  SelectionProblem c{.tokens = 700, .lists = 2, .query_block = 16, .key_block = 16};
  c.top_k = top_k, c.mass = mass, c.threshold = threshold;
  return c;
}

Outcome choose_by_every_rule(const Kernels& kernels) {
  static const ChooseLaunch launches[] = {ChooseLaunch(rule(5, 0, -1)), ChooseLaunch(rule(0, 0.6, -1)),
                                          ChooseLaunch(rule(9, 0.3, -1)), ChooseLaunch(rule(0, 0, 0.5))};
  Outcome all;
  for (const ChooseLaunch& launch : launches) {
    const Outcome one = launch.run(kernels);
    all.errors.insert(all.errors.end(), one.errors.begin(), one.errors.end());
    all.error = std::max(all.error, one.error);
    all.wavefronts = std::max(all.wavefronts, one.wavefronts);
  }
  return all;
}

TEST(SelectionMutants, Choose) {
  const Mutant mutants[] = {
      {"scores at the trial value do not count", kChoose, "setp\\.ge\\.u32", "setp.gt.u32", kEverywhere,
       kNumbers},
      {"ties go to nobody's place", kChoose, "popc\\.b32(\\s+\\S+) .*", "mov.u32$1 0;", 0, kNumbers},
      {"ties of the blocks before are forgotten", kChoose, "popc\\.b32(\\s+\\S+) .*", "mov.u32$1 0;", 1,
       kNumbers},
      {"all of a part take one place", kChoose, "popc\\.b32(\\s+\\S+) .*", "mov.u32$1 0;", 2, kNumbers},
      {"a part takes the place of the one before", kChoose, "popc\\.b32(\\s+\\S+) .*", "mov.u32$1 0;", 3,
       kNumbers},
      {"the list grows over scores that are not read", kChoose, "bar\\.warp\\.sync.*", "", 0, "lane"},
      {"the list is read before it is written", kChoose, "bar\\.warp\\.sync.*", "", 1, "lane"},
      {"the highest bit is left out", kChoose, "clz\\.b32(\\s+\\S+) (\\S+);", "mov.u32$1 31;", 0, kNumbers},
      {"mass: the highest bit is left out", kChoose, "clz\\.b32(\\s+\\S+) (\\S+);", "mov.u32$1 31;", 1,
       kNumbers},
      {"mass: all of the sum is wanted", kChoose, "mul\\.f64(\\s+\\S+) (\\S+), (\\S+);", "mov.f64$1 $3;", 0,
       kNumbers},
      {"all blocks choose the same rows", kChoose, kBlock, "mov.u32$1 1;", kEverywhere,
       "race between blocks"},
  };
  ptx::expect_all_caught(mutants, Kernels(selection_file_of), kLimit, choose_by_every_rule);
}

TEST(SelectionMutants, Pool) {
  const PoolLaunch launch(100, 2, 64, 12, 5);
  const Mutant mutants[] = {
      {"the last of equal tokens is picked", kPool, "setp\\.gt\\.f32", "setp.ge.f32", kEverywhere, kNumbers},
      {"the largest in place of the smallest", kPool, "setp\\.lt\\.f32", "setp.gt.f32", kEverywhere,
       kNumbers},
      {"the mean is the sum", kPool, "div\\.rn\\.f32(\\s+\\S+) (\\S+), \\S+;", "mov.f32$1 $2;", kEverywhere,
       kNumbers},
      {"all blocks pool one window", kPool, kBlock, "mov.u32$1 2;", 0, "race between blocks"},
      {"gradient: all but the picked token", kGradient, "setp\\.eq\\.s32", "setp.ne.s32", kEverywhere,
       kNumbers},
      {"gradient: the mean's is not divided", kGradient, "div\\.rn\\.f32(\\s+\\S+) (\\S+), \\S+;",
       "mov.f32$1 $2;", kEverywhere, kNumbers},
      {"gradient: all blocks add up one token", kGradient, kBlock, "mov.u32$1 30;", 0, "race between blocks"},
  };
  ptx::expect_all_caught(mutants, Kernels(selection_file_of), kLimit,
                         [&](const Kernels& kernels) { return launch.run(kernels); });
}

void expect_no_waste(const Outcome& outcome) {
  EXPECT_TRUE(outcome.errors.empty()) << outcome.errors[0];
  EXPECT_LE(outcome.error, kLimit);
  EXPECT_LE(outcome.wavefronts, 1.05);
  EXPECT_LE(outcome.sectors, 1.10);
}

// Full tiles at NSA's and SeerAttention's sizes. fp32 products of head dim 64 and 128 have tiles of their
// own.
TEST(SelectionTraffic, ScoresOfWindows) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16, DType::kFloat32})
    for (const int64_t size : {64, 128}) {
      SCOPED_TRACE(text(static_cast<int>(dtype), ' ', size));
      SelectionProblem nsa{.tokens = 1536, .heads = 16, .size = size, .query_block = 64, .key_block = 64};
      nsa.width = 32, nsa.stride = 16, nsa.top_k = 16, nsa.latest = 2, nsa.dtype = dtype;
      expect_no_waste(SelectLaunch(nsa).run(Kernels(selection_file_of)));
      SelectionProblem seer{.tokens = 4096, .heads = 1, .size = size, .query_block = 64, .key_block = 64};
      seer.width = seer.stride = 64, seer.top_k = 8, seer.first = 0, seer.dtype = dtype;
      seer.visible = selection::CudaVisible::started, seer.softmax = false;
      expect_no_waste(SelectLaunch(seer).run(Kernels(selection_file_of)));
    }
}

TEST(SelectionTraffic, ChoiceAndPools) {
  SelectionProblem c{.tokens = 4096, .lists = 2, .query_block = 64, .key_block = 16};
  c.top_k = 16;
  expect_no_waste(ChooseLaunch(c).run(Kernels(selection_file_of)));
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16, DType::kFloat32}) {
    expect_no_waste(PoolLaunch(256, 4, 128, 64, 64, dtype).run(Kernels(selection_file_of)));
    expect_no_waste(PoolLaunch(256, 4, 64, 32, 16, dtype).run(Kernels(selection_file_of)));
  }
}

// The order in which blocks and warps run changes nothing.
TEST(SelectionTraffic, BitsDoNotDependOnTheSchedule) {
  for (const uint64_t schedule : {1, 2, 3})
    for (SelectionProblem c : {token_windows(), two_chunks()}) {
      c.schedule = schedule;
      const Outcome outcome = SelectLaunch(c).run(Kernels(selection_file_of));
      EXPECT_TRUE(outcome.errors.empty()) << outcome.errors[0];
      EXPECT_LE(outcome.error, kLimit);
    }
}

}  // namespace
}  // namespace longreach::test
