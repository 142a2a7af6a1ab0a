// Parsers of the static report on small texts, and the arithmetic of occupancy and roofline on published
// examples.
#include "layers/ops/cuda/static_report.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "layers/ops/cuda/occupancy.h"
#include "layers/ops/launches/launches.h"

namespace longreach::cuda {
namespace {

constexpr const char* kPtxas = R"(ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_80'
ptxas info    : Function properties for first
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 238 registers, used 1 barriers, 664 bytes cmem[0]
ptxas info    : Compile time = 1746.835 ms
ptxas info    : Compiling entry function 'second' for 'sm_80'
ptxas info    : Function properties for second
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers, 8 bytes cumulative stack size, 1024 bytes smem
)";

TEST(StaticReport, ReadsPtxas) {
  const auto all = parse_ptxas(kPtxas, "x");
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].kernel, "first");
  EXPECT_EQ(all[0].arch, "sm_80");
  EXPECT_EQ(all[0].registers, 238);
  EXPECT_EQ(all[0].spill_stores + all[0].spill_loads + all[0].stack + all[0].static_shared, 0);
  EXPECT_EQ(all[1].registers, 40);
  EXPECT_EQ(all[1].stack, 8);
  EXPECT_EQ(all[1].spill_stores, 4);
  EXPECT_EQ(all[1].spill_loads, 12);
  EXPECT_EQ(all[1].static_shared, 1024);
}

TEST(StaticReport, RefusesReportsWithoutRegistersOrSpills) {
  EXPECT_THROW(parse_ptxas("Compiling entry function 'f' for 'sm_80'\nUsed 4 registers\n", "x"), DataError);
  EXPECT_THROW(parse_ptxas("Compiling entry function 'f' for 'sm_80'\n0 bytes spill stores\n", "x"),
               DataError);
}

constexpr const char* kPtx = R"(
.visible .entry loops(
	.param .align 8 .b8 p[8]
)
.maxntid 128, 1, 1
{
	.reg .b32 %r<4>;
$L__BB0_1:
	ld.global.v4.f32 	{%f1, %f2, %f3, %f4}, [%rd1];
	mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {a}, {b}, {c}, {a};
$L__BB0_2:
	// begin inline asm
	{
.reg .pred p;
	mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {a}, {b}, {c}, {a};
	mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {a}, {b}, {c}, {a};
}
	@%p1 bra 	$L__BB0_2;
	@%p2 bra 	$L__BB0_3;
	bra.uni 	$L__BB0_1;
$L__BB0_3:
	st.global.u16 	[%rd1], %rs1;
	@%p3 st.global.v2.f64 	[%rd1], {%fd1, %fd2};
	st.shared.f32 	[%r1], %f1;
	cp.async.cg.shared.global [%r1], [%rd2], 16, %r2;
	cp.async.ca.shared.global [%r1], [%rd2], 8, %r2;
	ld.param.u32 	%r1, [p];
	ret;
}
.visible .entry straight()
{
	wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {a}, b, c, p, 1, 1, 0, 0;
	ret;
}
)";

TEST(StaticReport, ReadsPtx) {
  const auto all = parse_ptx(kPtx);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].kernel, "loops");
  EXPECT_EQ(all[0].tensor, 3);
  EXPECT_EQ(all[0].loop_tensor, 3);  // the outer loop has the most
  EXPECT_EQ(all[0].loop_instructions, 7);
  EXPECT_EQ(all[0].wide_loads, 2);
  EXPECT_EQ(all[0].narrow_loads, 1);
  EXPECT_EQ(all[0].wide_stores, 1);
  EXPECT_EQ(all[0].narrow_stores, 1);
  EXPECT_EQ(all[1].loop_tensor, 1);
  EXPECT_EQ(all[1].loop_instructions, 2);
}

TEST(StaticReport, TablesComeBackAsTheyWere) {
  auto resources = parse_ptxas(kPtxas, "x");
  resources[0].kernel = "loops", resources[1].kernel = "straight";
  const auto rows = join_reports(resources, parse_ptx(kPtx), "x");
  const std::string table = write_table(rows);
  EXPECT_EQ(write_table(read_table(table, "x")), table);
  EXPECT_THROW(join_reports(parse_ptxas(kPtxas, "x"), parse_ptx(kPtx), "x"), DataError);
  EXPECT_THROW(read_table("kernel sm_80 1 2\n", "x"), DataError);
  EXPECT_THROW(read_table(table.substr(0, table.find('\n')) + " 1\n", "x"), DataError);
}

TEST(Occupancy, ByEachLimit) {
  const DeviceLimits &a100 = kDevices[0], &h100 = kDevices[1];
  EXPECT_EQ(blocks_a_multiprocessor(a100, 1024, 32, 0), 2);      // threads
  EXPECT_EQ(blocks_a_multiprocessor(a100, 32, 16, 0), 32);       // blocks
  EXPECT_EQ(blocks_a_multiprocessor(a100, 128, 132, 41984), 3);  // registers: 136 x 32 a warp, 12 warps
  EXPECT_EQ(blocks_a_multiprocessor(h100, 128, 128, 41984), 4);
  EXPECT_EQ(blocks_a_multiprocessor(a100, 128, 64, 83 * 1024), 1);  // shared memory
  EXPECT_EQ(blocks_a_multiprocessor(a100, 128, 64, 82 * 1024 - 1024), 2);
  EXPECT_EQ(blocks_a_multiprocessor(a100, 128, 64, 164 * 1024), 0);
  EXPECT_EQ(blocks_a_multiprocessor(h100, 128, 64, 164 * 1024), 1);
}

// B 1, H 16, T 8192, D 64: 137 GFLOP are 440 us of an A100 and 139 us of an H100 at their peaks.
TEST(Roofline, ForwardAttention) {
  for (const NamedLaunch& named : named_launches()) {
    if (named.launch.kernel != "interval_attention_forward_bf16_64_64") continue;
    EXPECT_NEAR(roofline_seconds(kDevices[0], named.work), 440e-6, 1e-6);
    EXPECT_NEAR(roofline_seconds(kDevices[1], named.work), 139e-6, 1e-6);
    EXPECT_EQ(named.launch.block.x, 128u);
    return;
  }
  FAIL() << "no such kernel";
}

}  // namespace
}  // namespace longreach::cuda
