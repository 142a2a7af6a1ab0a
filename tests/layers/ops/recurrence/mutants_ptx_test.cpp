// The mutation gate over the kernels of the recurrence that ship.
#include "tests/layers/ops/cuda/kernel_cases.h"

namespace longreach::test {
namespace {

using ptx::kEverywhere;
using ptx::kNumbers;
using ptx::Mutant;

constexpr double kLimit = 1e-2;  // as the tests of these kernels
// Three chunks, the last one ragged; three slices of keys where their two buffers must come round.
constexpr int64_t kTokens = 150;

constexpr const char* kTables = "recurrence_decay_tables";
constexpr const char* kSums = "recurrence_sums_bf16";
constexpr const char* kScan = "recurrence_scan";
constexpr const char* kOutput = "recurrence_output_bf16";
constexpr const char* kGradQuery = "recurrence_grad_query_bf16";
constexpr const char* kGradKey = "recurrence_grad_key_bf16";
constexpr const char* kGradValue = "recurrence_grad_value_bf16";
constexpr const char* kStep = "recurrence_step_bf16";
constexpr const char* kDecayGradient = "recurrence_decay_gradient";

constexpr const char* kMma = "(mma.*, \\{)(%\\w+), (%\\w+), (%\\w+), (%\\w+)\\}, (\\{%\\w+, %\\w+\\})";
constexpr const char* kSwapped = "$1$2, $4, $3, $5}, $6";
constexpr const char* kPack = "(cvt\\.rn\\.bf16x2\\.f32\\s+\\S+) (\\S+), (\\S+);";
constexpr const char* kPackSwapped = "$1 $3, $2;";

TEST(RecurrenceMutants, States) {
  const RecurrenceLaunch launch(kTokens, 64, 64);
  const Mutant mutants[] = {
      {"tables: warps do not wait for one another", kTables, "bar\\.sync.*", "", 0, "another warp"},
      {"sums: copies are not waited for", kSums, "cp\\.async\\.wait_group.*", "", 0, "unfinished cp.async"},
      {"sums: no barrier before tiles are used", kSums, "bar\\.sync.*", "", 0, "another warp"},
      {"sums: two heads write one state", kSums, "mov\\.u32(\\s+\\S+) %ctaid\\.y;", "mov.u32$1 0;", 0,
       "race between blocks"},
      {"sums: keys are not transposed", kSums, "\\.trans", "", 0, kNumbers},
      {"scan: states do not decay", kScan, "fma\\.rn\\.f32(\\s+\\S+) (\\S+), \\S+, (\\S+);",
       "add.f32$1 $2, $3;", kEverywhere, kNumbers},
  };
  ptx::expect_all_caught(mutants, Kernels(file_of), kLimit,
                         [&](const Kernels& kernels) { return launch.run(kernels, false); });
}

TEST(RecurrenceMutants, Outputs) {
  const RecurrenceLaunch launch(kTokens, 192, 64);
  const Mutant mutants[] = {
      {"output: copies are not waited for", kOutput, "cp\\.async\\.wait_group.*", "", 0,
       "unfinished cp.async"},
      {"output: one group too many may be under way", kOutput, "wait_group 1;", "wait_group 2;", 0,
       "unfinished cp.async"},
      {"output: no barrier before a slice is used", kOutput, "bar\\.sync.*", "", 1, "another warp"},
      {"output: a slice is overwritten while it is read", kOutput, "bar\\.sync.*", "", 2, "another warp"},
      {"output: rows leave without __syncwarp", kOutput, "bar\\.warp\\.sync.*", "", 0,
       "no __syncwarp between"},
      {"output: a token does not see itself", kOutput, "setp\\.ge\\.s32", "setp.gt.s32", 7, kNumbers},
      {"output: a row past the end is stored", kOutput, "setp\\.ge\\.s32", "setp.gt.s32", 10,
       "out of bounds of global memory"},
      {"output: registers of A change places", kOutput, kMma, kSwapped, 0, kNumbers},
      {"output: halves of the scores change places", kOutput, kPack, kPackSwapped, kEverywhere, kNumbers},
  };
  ptx::expect_all_caught(mutants, Kernels(file_of), kLimit,
                         [&](const Kernels& kernels) { return launch.run(kernels, false); });
}

TEST(RecurrenceMutants, GradientsOfQueriesKeysAndDecays) {
  const RecurrenceLaunch launch(kTokens, 64, 64);
  const Mutant mutants[] = {
      {"dK: heads that share a key are not kept apart", kGradKey, "bar\\.sync.*", "", 0, "another"},
      {"dK: no barrier before a slice is used", kGradKey, "bar\\.sync.*", "", 1, "another warp"},
      {"dQ: copies are not waited for", kGradQuery, "cp\\.async\\.wait_group.*", "", 0,
       "unfinished cp.async"},
      {"dQ: parts of the decay's gradient meet without a barrier", kGradQuery, "bar\\.sync.*", "", 3,
       "another warp"},
      {"decay: parts with the wrong sign", kDecayGradient, "add\\.f64", "sub.f64", kEverywhere, kNumbers},
  };
  ptx::expect_all_caught(mutants, Kernels(file_of), kLimit,
                         [&](const Kernels& kernels) { return launch.run(kernels, true); });
}

TEST(RecurrenceMutants, GradientOfValues) {
  const RecurrenceLaunch launch(kTokens, 192, 64);
  const Mutant mutants[] = {
      {"dV: registers of A change places", kGradValue, kMma, kSwapped, 0, kNumbers},
      {"dV: a slice is overwritten while it is read", kGradValue, "bar\\.sync.*", "", 2, "another warp"},
  };
  ptx::expect_all_caught(mutants, Kernels(file_of), kLimit,
                         [&](const Kernels& kernels) { return launch.run(kernels, true); });
}

TEST(RecurrenceMutants, Step) {
  const StepLaunch launch(DType::kBFloat16);
  const Mutant mutants[] = {
      {"queries and keys are read before all are there", kStep, "bar\\.sync.*", "", 0, "another warp"},
      {"groups of rows meet without a barrier", kStep, "bar\\.sync.*", "", 1, "another warp"},
      {"both heads work on one state", kStep, "mov\\.u32(\\s+\\S+) %ctaid\\.y;", "mov.u32$1 0;", 0,
       "race between blocks"},
      {"both tiles of columns are the first", kStep, "mov\\.u32(\\s+\\S+) %ctaid\\.x;", "mov.u32$1 0;", 0,
       "race between blocks"},
      {"the decay is not exponential", kStep, "ex2\\.approx\\.ftz\\.f32(\\s*\\S+) (\\S+);", "mov.f32$1 $2;",
       0, kNumbers},
      {"queries are not scaled", kStep, "mul\\.f32(\\s+\\S+) %f\\d+, (%f\\d+);", "mov.f32$1 $2;", 0,
       kNumbers},
      {"the state does not decay", kStep, "fma\\.rn\\.f32(\\s+\\S+) \\S+, (\\S+), (\\S+);",
       "add.f32$1 $2, $3;", 8, kNumbers},
      {"a group of rows is left out", kStep, "add\\.f32(\\s+\\S+) (%f\\d+), %f\\d+;", "mov.f32$1 $2;", 0,
       kNumbers},
  };
  ptx::expect_all_caught(mutants, Kernels(file_of), kLimit,
                         [&](const Kernels& kernels) { return launch.run(kernels); });
}

}  // namespace
}  // namespace longreach::test
