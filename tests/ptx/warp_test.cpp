// Micro-tests of what lanes, warps and memory do together: shuffles, votes, divergence, barriers, atomics,
// races.
#include <gtest/gtest.h>

#include <bit>

#include "core/error.h"
#include "tests/ptx/interpreter/one_block.h"

namespace longreach::ptx {
namespace {

const std::string kStore =
    "mad.wide.u32 %q1, %thread, 8, %out;\ncvt.u64.u32 %q2, %r9;\nst.global.u64 [%q1], %q2;\n";

Result lanes(const std::string& body, uint32_t threads = 32, uint32_t shared = 0) {
  return run_text(body + kStore, {0}, threads, threads, shared, ".extern .shared .align 16 .b8 buffer[];");
}

void expect_lanes(const std::string& body, uint64_t (*expected)(uint64_t lane)) {
  const Result r = lanes(body);
  EXPECT_TRUE(r.report.errors.empty()) << r.report.text();
  for (uint64_t l = 0; l < 32; ++l) EXPECT_EQ(r.out[l], expected(l)) << body << " lane " << l;
}

TEST(Warp, Shuffles) {
  expect_lanes("shfl.sync.bfly.b32 %r9, %lane, 5, 31, -1;", [](uint64_t l) { return l ^ 5; });
  expect_lanes("shfl.sync.idx.b32 %r9, %lane, 7, 31, -1;", [](uint64_t) { return uint64_t{7}; });
  expect_lanes("shfl.sync.up.b32 %r9, %lane, 3, 0, -1;", [](uint64_t l) { return l < 3 ? l : l - 3; });
  expect_lanes("shfl.sync.down.b32 %r9, %lane, 3, 31, -1;", [](uint64_t l) { return l > 28 ? l : l + 3; });
  // Segments of 8: the clamp word is (32 - width) << 8 | 31, with width 8.
  expect_lanes("shfl.sync.idx.b32 %r9, %lane, 2, 6175, -1;", [](uint64_t l) { return l / 8 * 8 + 2; });
  expect_lanes("shfl.sync.down.b32 %r1|%p1, %lane, 4, 6175, -1; selp.u32 %r9, 1, 0, %p1;",
               [](uint64_t l) { return uint64_t{l % 8 < 4}; });
}

TEST(Warp, VotesAndReductions) {
  expect_lanes("setp.lt.u32 %p1, %lane, 5; vote.sync.ballot.b32 %r9, %p1, -1;",
               [](uint64_t) { return uint64_t{31}; });
  expect_lanes("setp.lt.u32 %p1, %lane, 5; vote.sync.any.pred %p2, %p1, -1; selp.u32 %r9, 1, 0, %p2;",
               [](uint64_t) { return uint64_t{1}; });
  expect_lanes("setp.lt.u32 %p1, %lane, 5; vote.sync.all.pred %p2, %p1, -1; selp.u32 %r9, 1, 0, %p2;",
               [](uint64_t) { return uint64_t{0}; });
  expect_lanes("redux.sync.add.s32 %r9, %lane, -1;", [](uint64_t) { return uint64_t{496}; });
  expect_lanes("redux.sync.max.u32 %r9, %lane, -1;", [](uint64_t) { return uint64_t{31}; });
  expect_lanes("and.b32 %r1, %lane, 1; match.any.sync.b32 %r9, %r1, -1;",
               [](uint64_t l) { return uint64_t{l & 1 ? 0xaaaaaaaa : 0x55555555}; });
  expect_lanes("elect.sync %r1|%p1, -1; selp.u32 %r9, 1, 0, %p1;",
               [](uint64_t l) { return uint64_t{l == 0}; });
  expect_lanes("activemask.b32 %r9;", [](uint64_t) { return uint64_t{0xffffffff}; });
}

TEST(Warp, LoopsWithDivergentExitsMeetAgain) {
  // Each lane counts down from its number, then all sum their counts: 0 + 1 + ... + 31.
  expect_lanes(
      "mov.u32 %r1, %lane; mov.u32 %r2, 0;\n$loop:\nsetp.eq.u32 %p1, %r1, 0;\n@%p1 bra $done;\nsub.u32 %r1, "
      "%r1, 1;\n"
      "add.u32 %r2, %r2, 1;\nbra $loop;\n$done:\nredux.sync.add.s32 %r9, %r2, -1;",
      [](uint64_t) { return uint64_t{496}; });
  // The exit lies before the loop in the text: the collective instruction has to wait for the lanes that
  // still loop.
  expect_lanes(
      "mov.u32 %r1, %lane;\nbra $loop;\n$done:\nredux.sync.max.u32 %r9, %lane, -1;\nbra "
      "$end;\n$loop:\nsetp.eq.u32 %p1, %r1, 0;\n"
      "@%p1 bra $done;\nsub.u32 %r1, %r1, 1;\nbra $loop;\n$end:\n",
      [](uint64_t) { return uint64_t{31}; });
  expect_lanes(
      "mov.u32 %r9, 9;\nand.b32 %r1, %lane, 1;\n$targets: .branchtargets $even, $odd;\nbrx.idx %r1, "
      "$targets;\n$even:\nmov.u32 %r9, 0;\n"
      "bra $end;\n$odd:\nmov.u32 %r9, 1;\n$end:\n",
      [](uint64_t l) { return l & 1; });
}

TEST(Warp, PartedLanesAreReported) {
  const Result r = lanes(
      "mov.u32 %r9, 0; setp.lt.u32 %p1, %lane, 5;\n@%p1 bra $a;\nshfl.sync.idx.b32 %r9, %lane, 0, 31, "
      "-1;\nbra $end;\n$a:\n"
      "shfl.sync.idx.b32 %r9, %lane, 0, 31, -1;\n$end:\n");
  EXPECT_TRUE(mentions(r.report, "parted")) << r.report.text();
}

const std::string kShared =
    "mov.u32 %r1, buffer;\nmad.lo.u32 %r2, %thread, 4, %r1;\nst.shared.u32 [%r2], %thread;\n";
const std::string kNeighbour =
    "xor.b32 %r3, %thread, 33;\nmad.lo.u32 %r4, %r3, 4, %r1;\nld.shared.u32 %r9, [%r4];\n";

TEST(Race, BarrierOrdersWarps) {
  const Result good = lanes(kShared + "bar.sync 0;\n" + kNeighbour, 64, 256);
  EXPECT_TRUE(good.report.errors.empty()) << good.report.text();
  for (uint64_t t = 0; t < 64; ++t) EXPECT_EQ(good.out[t], t ^ 33);
  const Result bad = lanes(kShared + "bar.warp.sync -1;\n" + kNeighbour, 64, 256);
  EXPECT_TRUE(mentions(bad.report, "race: reads what another warp writes") ||
              mentions(bad.report, "race: writes what another warp reads"))
      << bad.report.text();
}

TEST(Race, LanesNeedWarpSync) {
  const std::string neighbour =
      "xor.b32 %r3, %thread, 1;\nmad.lo.u32 %r4, %r3, 4, %r1;\nld.shared.u32 %r9, [%r4];\n";
  EXPECT_TRUE(lanes(kShared + "bar.warp.sync -1;\n" + neighbour, 32, 128).report.errors.empty());
  EXPECT_TRUE(mentions(lanes(kShared + neighbour, 32, 128).report, "no __syncwarp between"));
  EXPECT_TRUE(lanes(kShared + "ld.shared.u32 %r9, [%r2];\n", 32, 128).report.errors.empty());
}

TEST(Race, HalvesOfAWordAreApart) {
  // Each thread adds to its own 16-bit element in place, in shared memory and, over two blocks, in global
  // memory.
  const auto in_place = [](const std::string& space, const std::string& address) {
    return "mad.wide.u32 %q1, %thread, 2, " + address + ";\nld." + space +
           ".u16 %s1, [%q1];\nadd.u16 %s1, %s1, 1;\nst." + space + ".u16 [%q1], %s1;\n";
  };
  const std::string shared =
      "mov.u64 %q0, buffer;\nmad.wide.u32 %q1, %thread, 2, %q0;\nmov.u16 %s1, 7;\nst.shared.u16 [%q1], "
      "%s1;\n" +
      in_place("shared", "%q0") + "ld.shared.u16 %s2, [%q1];\ncvt.u32.u16 %r9, %s2;\n";
  const Result r = lanes(shared, 64, 128);
  EXPECT_TRUE(r.report.errors.empty()) << r.report.text();
  EXPECT_EQ(r.out[5], 8u);
  const std::string odd =
      "mov.u32 %r1, %ctaid.x;\nmad.wide.u32 %q3, %r1, 6, %out;\n" + in_place("global", "%q3");
  const Result blocks = run_text(odd, {0}, 2, 3, 0, "", {}, 2);
  EXPECT_TRUE(blocks.report.errors.empty()) << blocks.report.text();
  EXPECT_EQ(blocks.out[0], 0x0001000100010001u);
}

TEST(Race, NamedBarriersOrderTheirWarps) {
  // Warp 0 produces and arrives; warp 1 waits.
  const std::string split =
      "mov.u32 %r9, 0; mov.u32 %r1, buffer;\nand.b32 %r5, %thread, 31;\nmad.lo.u32 %r2, %r5, 4, "
      "%r1;\nsetp.lt.u32 %p1, %thread, 32;\n"
      "@%p1 bra $produce;\n";
  const std::string tail = "ld.shared.u32 %r9, [%r2];\nbra $end;\n$produce:\nst.shared.u32 [%r2], %thread;\n";
  const Result good = lanes(split + "bar.sync 3, 64;\n" + tail + "bar.arrive 3, 64;\n$end:\n", 64, 128);
  EXPECT_TRUE(good.report.errors.empty()) << good.report.text();
  for (uint64_t t = 32; t < 64; ++t) EXPECT_EQ(good.out[t], t - 32);
  const Result wrong = lanes(split + "bar.sync 4, 64;\n" + tail + "bar.arrive 3, 64;\n$end:\n", 64, 128);
  EXPECT_TRUE(mentions(wrong.report, "deadlock")) << wrong.report.text();
}

TEST(Barrier, ExitsAndDeadlocksAreReported) {
  const Result r = lanes("mov.u32 %r9, 0; setp.lt.u32 %p1, %thread, 32;\n@%p1 ret;\nbar.sync 0;\n", 64);
  EXPECT_TRUE(mentions(r.report, "deadlock")) << r.report.text();
  EXPECT_TRUE(mentions(r.report, "1 warps have exited")) << r.report.text();
  EXPECT_TRUE(
      mentions(lanes("mov.u32 %r9, 0; setp.lt.u32 %p1, %lane, 3;\n@%p1 ret;\nbar.sync 0;\n", 64).report,
               "have exited"));
  const Result reduced =
      lanes("setp.lt.u32 %p1, %thread, 5;\nbarrier.cta.red.popc.aligned.u32 %r9, 0, %p1;\n", 64);
  EXPECT_EQ(reduced.out[40], 5u) << reduced.report.text();
}

TEST(Barrier, MbarrierOrdersItsWaiters) {
  const std::string start =
      "mov.u32 %r1, buffer;\nsetp.ne.u32 %p1, %thread, 0;\n@!%p1 mbarrier.init.shared::cta.b64 [%r1+128], "
      "32;\nbar.sync 0;\n"
      "mov.u32 %r9, 0;\nand.b32 %r5, %thread, 31;\nmad.lo.u32 %r2, %r5, 4, %r1;\nsetp.lt.u32 %p1, %thread, "
      "32;\n@%p1 bra $produce;\n";
  const std::string wait =
      "$wait:\nmbarrier.try_wait.parity.shared::cta.b64 %p2, [%r1+128], 0;\n@!%p2 bra $wait;\n";
  const std::string rest =
      "ld.shared.u32 %r9, [%r2];\nbra $end;\n$produce:\nst.shared.u32 [%r2], "
      "%thread;\nmbarrier.arrive.shared::cta.b64 _, [%r1+128];\n$end:\n";
  const Result good = lanes(start + wait + rest, 64, 256);
  EXPECT_TRUE(good.report.errors.empty()) << good.report.text();
  EXPECT_EQ(good.out[45], 13u);
  EXPECT_FALSE(lanes(start + rest, 64, 256).report.errors.empty());
}

// Three warpgroups begin with 168 registers a thread; `given` and `taken` are what one keeps and two want.
Result share_registers(const std::string& given, const std::string& taken) {
  return run_text("setp.lt.u32 %p1, %thread, 128;\n@%p1 bra $give;\nsetmaxnreg.inc.sync.aligned.u32 " +
                      taken + ";\nbra $end;\n$give:\nsetmaxnreg.dec.sync.aligned.u32 " + given + ";\n$end:\n",
                  {0}, 1, 384);
}

TEST(Registers, WarpgroupsShareWhatTheBlockHas) {
  EXPECT_TRUE(share_registers("24", "240").report.errors.empty())
      << share_registers("24", "240").report.text();
  EXPECT_TRUE(share_registers("168", "168").report.errors.empty());
  const Result more = share_registers("32", "240");  // 32 + 2 x 240 > 3 x 168
  EXPECT_TRUE(mentions(more.report, "deadlock")) << more.report.text();
  EXPECT_TRUE(mentions(more.report, "for 240 registers a thread: it has 168")) << more.report.text();
}

TEST(Registers, ChangesAreHeldToTheirDirectionAndToWholeWarpgroups) {
  EXPECT_TRUE(mentions(share_registers("176", "168").report, "setmaxnreg.dec to more registers: 176 of 168"));
  EXPECT_TRUE(mentions(share_registers("24", "160").report, "setmaxnreg.inc to fewer registers: 160 of 168"));
  const Result one = run_text(
      "setp.lt.u32 %p1, %thread, 32;\n@!%p1 bra $end;\nsetmaxnreg.dec.sync.aligned.u32 "
      "24;\n$end:\n",
      {0}, 1, 128);
  EXPECT_TRUE(mentions(one.report, "not executed alike")) << one.report.text();
  EXPECT_THROW(share_registers("20", "240"), DataError);
}

TEST(Memory, WidthsSignsAndVectors) {
  const std::vector<uint64_t> in{0x8877665544332211, 0xffeeddccbbaa9988};
  const auto value = [&](const std::string& body) {
    const Result r = run_text(body + "\nst.global.u64 [%out], %q9;\n", in, 1, 1);
    EXPECT_TRUE(r.report.errors.empty()) << r.report.text();
    return r.out[0];
  };
  EXPECT_EQ(value("ld.global.u8 %r1, [%in+7]; cvt.u64.u32 %q9, %r1;"), 0x88u);
  EXPECT_EQ(value("ld.global.s8 %r1, [%in+7]; cvt.u64.u32 %q9, %r1;"), 0xffffff88u);
  EXPECT_EQ(value("ld.global.s32 %q9, [%in+4];"), 0xffffffff88776655u);
  EXPECT_EQ(value("ld.global.nc.v2.u32 {%r1, %r2}, [%in]; mov.b64 %q9, {%r2, %r1};"), 0x4433221188776655u);
  EXPECT_EQ(value("ld.global.v4.u32 {%r1, _, _, %r2}, [%in]; mov.b64 %q9, {%r1, %r2};"), 0xffeeddcc44332211u);
  EXPECT_EQ(value("ld.global.L1::no_allocate.v2.u64 {%q1, %q9}, [%in];"), in[1]);
  EXPECT_EQ(value("cvta.to.global.u64 %q1, %in; cvta.global.u64 %q2, %q1; ld.u64 %q9, [%q2+8];"), in[1]);
  EXPECT_EQ(value(".local .align 8 .b8 stack[16];\nmov.u64 %q1, stack; cvta.local.u64 %q2, %q1; st.local.u64 "
                  "[%q1+8], %in; ld.u64 %q3, [%q2+8]; sub.u64 %q9, %q3, %in;"),
            0u);
  EXPECT_EQ(value("st.global.v2.u32 [%out], {%lane, %lane}; ld.global.u64 %q9, [%out];"), 0u);
}

TEST(Memory, BadAccessesAreReported) {
  const auto report = [](const std::string& body, uint32_t shared = 64) {
    return run_text(body, {1, 2}, 1, 1, shared, ".extern .shared .align 16 .b8 buffer[];").report;
  };
  EXPECT_TRUE(mentions(report("ld.global.u64 %q1, [%in+16];"), "in[16] of 16 bytes"));
  EXPECT_TRUE(mentions(report("ld.global.u32 %r1, [%in+2];"), "misaligned"));
  EXPECT_TRUE(mentions(report("ld.global.u64 %q1, [%in+4];"), "misaligned"));
  EXPECT_TRUE(mentions(report("mov.u64 %q1, 4096; ld.global.u32 %r1, [%q1];"), "out of bounds"));
  EXPECT_TRUE(mentions(report("mov.u32 %r1, buffer; ld.shared.u32 %r2, [%r1];"), "uninitialised shared"));
  EXPECT_TRUE(mentions(report("mov.u32 %r1, buffer; st.shared.u32 [%r1+64], %r2;"),
                       "out of bounds of shared memory"));
}

TEST(Memory, Atomics) {
  const auto after = [](const std::string& operation, uint64_t before, uint32_t threads = 32) {
    const Result r = run_text("st.global.u64 [%out], %q0;\n", {0}, 1, 1);
    const Result found =
        run_text("ld.global.u64 %q0, [%in];\nadd.u64 %q3, %in, 0;\n" + operation, {before}, 1, threads);
    (void)r;
    EXPECT_TRUE(found.report.errors.empty()) << found.report.text();
    return found.out[0];
  };
  EXPECT_EQ(after("red.global.add.u32 [%out], 3;", 0), 96u);
  EXPECT_EQ(after("atom.global.max.s32 %r1, [%out], %lane;", 0), 31u);
  EXPECT_EQ(after("atom.global.add.u64 %q1, [%out], 5;", 0), 160u);
  EXPECT_EQ(after("red.global.add.f32 [%out], 0f3f800000;", 0), uint64_t{std::bit_cast<uint32_t>(32.0f)});
  EXPECT_EQ(after("atom.global.exch.b32 %r1, [%out], 7;", 0), 7u);
  EXPECT_EQ(after("atom.global.cas.b32 %r1, [%out], 0, 9;", 0), 9u);
  EXPECT_EQ(after("atom.global.or.b32 %r1, [%out], %lane;", 0), 31u);
  EXPECT_EQ(after("atom.global.inc.u32 %r1, [%out], 9;", 0), 2u);
}

TEST(Memory, BlocksRaceUnlessAtomic) {
  for (const int threads : {1, 2}) {
    EXPECT_TRUE(
        mentions(run_text("st.global.u64 [%out], %in;", {0}, 1, 1, 0, "", {.threads = threads}, 3).report,
                 "race between blocks: both write"));
    EXPECT_TRUE(run_text("red.global.add.u32 [%out], 1;", {0}, 1, 1, 0, "", {.threads = threads}, 3)
                    .report.errors.empty());
    EXPECT_TRUE(run_text("ld.global.u64 %q1, [%in];", {0}, 1, 1, 0, "", {.threads = threads}, 3)
                    .report.errors.empty());
  }
}

TEST(Copy, WaitsAndZeroFill) {
  const std::string copy = "mov.u32 %r1, buffer;\ncp.async.ca.shared.global [%r1], [%in], 16, 8;\n";
  const std::string read =
      "ld.shared.v2.u64 {%q1, %q2}, [%r1];\nadd.u64 %q9, %q1, %q2;\nst.global.u64 [%out], %q9;\n";
  const auto go = [](const std::string& body) {
    return run_text(body, {5, 6}, 1, 1, 64, ".extern .shared .align 16 .b8 buffer[];");
  };
  const Result good = go(copy + "cp.async.commit_group;\ncp.async.wait_group 0;\n" + read);
  EXPECT_TRUE(good.report.errors.empty()) << good.report.text();
  EXPECT_EQ(good.out[0], 5u);
  EXPECT_TRUE(go(copy + "cp.async.wait_all;\n" + read).report.errors.empty());
  EXPECT_TRUE(mentions(go(copy + "cp.async.commit_group;\ncp.async.wait_group 1;\n" + read).report,
                       "unfinished cp.async"));
  EXPECT_TRUE(mentions(go(copy + "cp.async.wait_group 0;\n" + read).report,
                       "unfinished cp.async"));  // never committed
  EXPECT_TRUE(mentions(go(copy).report, "exits while a cp.async is in flight"));
}

}  // namespace
}  // namespace longreach::ptx
