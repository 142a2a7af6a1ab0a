// One micro-test an instruction of arithmetic, bits, comparison and conversion: PTX written from the ISA's
// text, results worked out by hand or in plain C++.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "core/error.h"
#include "tests/ptx/interpreter/one_block.h"

namespace longreach::ptx {
namespace {

// a, b and c are in %q0.. (64 bits), %r0.. (low 32) and %s0.. (low 16); the result is %q9, into which 32-bit
// results %r9 and 16-bit results %s9 are put when the body writes them.
struct Case {
  const char* body;
  uint64_t a, b, c, expected;
};

constexpr uint64_t f(float x) { return std::bit_cast<uint32_t>(x); }
constexpr uint64_t d(double x) { return std::bit_cast<uint64_t>(x); }
constexpr uint64_t kNan = 0x7fffffff;

uint64_t evaluate(const Case& t) {
  std::string body;
  for (int k = 0; k < 3; ++k) {
    const std::string n = std::to_string(k);
    body += "ld.global.u64 %q" + n + ", [%in+" + std::to_string(8 * k) + "];\ncvt.u32.u64 %r" + n + ", %q" +
            n + ";\ncvt.u16.u64 %s" + n + ", %q" + n + ";\n";
  }
  body += std::string(t.body) + "\n";
  if (body.find("%r9") != std::string::npos) body += "cvt.u64.u32 %q9, %r9;\n";
  if (body.find("%s9") != std::string::npos) body += "cvt.u64.u16 %q9, %s9;\n";
  body += "st.global.u64 [%out], %q9;\n";
  const Result r = run_text(body, {t.a, t.b, t.c}, 1, 1);
  EXPECT_TRUE(r.report.errors.empty()) << r.report.text();
  return r.out[0];
}

void check_cases(const std::vector<Case>& cases) {
  for (const Case& t : cases) {
    try {
      EXPECT_EQ(evaluate(t), t.expected)
          << t.body << std::hex << " a 0x" << t.a << " b 0x" << t.b << " c 0x" << t.c;
    } catch (const Error& e) {
      ADD_FAILURE() << e.what();
    }
  }
}

constexpr uint64_t kMinus1 = 0xffffffff;

TEST(Integer, Arithmetic) {
  check_cases({
      {"add.s32 %r9, %r0, %r1;", 7, kMinus1, 0, 6},
      {"add.sat.s32 %r9, %r0, %r1;", 0x7fffffff, 1, 0, 0x7fffffff},
      {"add.u64 %q9, %q0, %q1;", 0xffffffffffull, 1, 0, 0x10000000000ull},
      {"add.u16 %s9, %s0, %s1;", 0xffff, 2, 0, 1},
      {"sub.s32 %r9, %r0, %r1;", 3, 5, 0, 0xfffffffe},
      {"mul.lo.s32 %r9, %r0, %r1;", kMinus1, 5, 0, 0xfffffffb},
      {"mul.hi.u32 %r9, %r0, %r1;", 0x80000000, 6, 0, 3},
      {"mul.hi.s32 %r9, %r0, %r1;", 0x80000000, 2, 0, kMinus1},
      {"mul.hi.u64 %q9, %q0, %q1;", 1ull << 63, 6, 0, 3},
      {"mul.wide.s32 %q9, %r0, %r1;", kMinus1, 3, 0, static_cast<uint64_t>(-3)},
      {"mul.wide.u32 %q9, %r0, %r1;", kMinus1, 2, 0, 0x1fffffffe},
      {"mul.wide.u16 %r9, %s0, %s1;", 0xffff, 0xffff, 0, 0xfffe0001},
      {"mul.lo.s64 %q9, %q0, %q1;", 1ull << 33, 5, 0, 5ull << 33},
      {"mul24.lo.u32 %r9, %r0, %r1;", 0x01000003, 5, 0, 15},
      {"mad.lo.s32 %r9, %r0, %r1, %r2;", 3, 4, kMinus1, 11},
      {"mad.hi.u32 %r9, %r0, %r1, %r2;", 0x80000000, 2, 5, 6},
      {"mad.wide.s32 %q9, %r0, %r1, %q2;", kMinus1, 2, 1ull << 40, (1ull << 40) - 2},
      {"div.s32 %r9, %r0, %r1;", static_cast<uint32_t>(-7), 2, 0, static_cast<uint32_t>(-3)},
      {"div.u32 %r9, %r0, %r1;", kMinus1, 2, 0, 0x7fffffff},
      {"rem.s32 %r9, %r0, %r1;", static_cast<uint32_t>(-7), 3, 0, static_cast<uint32_t>(-1)},
      {"rem.u64 %q9, %q0, %q1;", 1000000000007ull, 10, 0, 7},
      {"min.s32 %r9, %r0, %r1;", kMinus1, 1, 0, kMinus1},
      {"min.u32 %r9, %r0, %r1;", kMinus1, 1, 0, 1},
      {"max.s64 %q9, %q0, %q1;", ~0ull, 3, 0, 3},
      {"max.u16 %s9, %s0, %s1;", 0x8000, 1, 0, 0x8000},
      {"neg.s32 %r9, %r0;", 5, 0, 0, static_cast<uint32_t>(-5)},
      {"abs.s32 %r9, %r0;", static_cast<uint32_t>(-5), 0, 0, 5},
      {"sad.u32 %r9, %r0, %r1, %r2;", 3, 10, 100, 107},
      {"dp4a.s32.s32 %r9, %r0, %r1, %r2;", 0x01ff0203, 0x02020202, 10, 10 + 2 - 2 + 4 + 6},
      {"dp4a.u32.u32 %r9, %r0, %r1, %r2;", 0x00ff0000, 0x00020000, 1, 511},
  });
}

TEST(Bits, Operations) {
  check_cases({
      {"and.b32 %r9, %r0, %r1;", 0xff00ff, 0x0ff0f0, 0, 0x0f00f0},
      {"or.b64 %q9, %q0, %q1;", 1ull << 40, 1, 0, (1ull << 40) + 1},
      {"xor.b32 %r9, %r0, -1;", 0xff, 0, 0, 0xffffff00},
      {"not.b32 %r9, %r0;", 0, 0, 0, kMinus1},
      {"shl.b32 %r9, %r0, %r1;", 1, 31, 0, 0x80000000},
      {"shl.b32 %r9, %r0, %r1;", 1, 32, 0, 0},
      {"shl.b64 %q9, %q0, %r1;", 1, 40, 0, 1ull << 40},
      {"shr.u32 %r9, %r0, %r1;", 0x80000000, 31, 0, 1},
      {"shr.s32 %r9, %r0, %r1;", 0x80000000, 40, 0, kMinus1},
      {"shr.s64 %q9, %q0, %r1;", 1ull << 63, 62, 0, static_cast<uint64_t>(-2)},
      {"shr.s16 %s9, %s0, %r1;", 0x8000, 4, 0, 0xf800},
      {"shf.l.wrap.b32 %r9, %r0, %r1, %r2;", 0x80000000, 1, 1, 3},
      {"shf.r.clamp.b32 %r9, %r0, %r1, %r2;", 2, 1, 1, 0x80000001},
      {"shf.r.clamp.b32 %r9, %r0, %r1, %r2;", 2, 9, 40, 9},
      {"lop3.b32 %r9, %r0, %r1, %r2, 0x96;", 0xff00, 0xf0f0, 0xcccc, 0xff00 ^ 0xf0f0 ^ 0xcccc},
      {"lop3.b32 %r9, %r0, %r1, %r2, 0xe8;", 0b1100, 0b1010, 0b0110, 0b1110},  // majority
      {"prmt.b32 %r9, %r0, %r1, 0x7510;", 0x44332211, 0x88776655, 0, 0x88662211},
      {"prmt.b32 %r9, %r0, %r1, 0x000f;", 0, 0x88000000, 0, 0x000000ff},
      {"bfe.u32 %r9, %r0, 4, 8;", 0xabcd, 0, 0, 0xbc},
      {"bfe.s32 %r9, %r0, 4, 8;", 0xabcd, 0, 0, 0xffffffbc},
      {"bfe.u64 %q9, %q0, 36, 4;", 0xabcull << 36, 0, 0, 0xc},
      {"bfi.b32 %r9, %r0, %r1, 8, 4;", 0xf5, 0, 0, 0x500},
      {"popc.b32 %r9, %r0;", 0xf0f0, 0, 0, 8},
      {"clz.b32 %r9, %r0;", 1, 0, 0, 31},
      {"clz.b64 %r9, %q0;", 0, 0, 0, 64},
      {"brev.b32 %r9, %r0;", 1, 0, 0, 0x80000000},
      {"bfind.u32 %r9, %r0;", 0x100, 0, 0, 8},
      {"bfind.shiftamt.u32 %r9, %r0;", 0x100, 0, 0, 23},
      {"bfind.s32 %r9, %r0;", kMinus1, 0, 0, kMinus1},
      {"mov.b64 %q9, {%r0, %r1};", 5, 7, 0, 7ull << 32 | 5},
      {"mov.b64 {%r3, %r4}, %q0; sub.u32 %r9, %r4, %r3;", 7ull << 32 | 5, 0, 0, 2},
      {"mov.b32 %r9, {%s0, %s1};", 0x1234, 0x5678, 0, 0x56781234},
      {"mov.b32 {%s3, %s4}, %r0; mov.u16 %s9, %s4;", 0x56781234, 0, 0, 0x5678},
      {"mov.u32 %r9, 0f3f800000;", 0, 0, 0, 0x3f800000},
      {"setp.lt.s32 %p1, %r0, %r1; selp.b32 %r9, %r0, %r2, %p1;", 1, 2, 3, 1},
      {"setp.ne.s32 %p1, %r0, 1; not.pred %p2, %p1; and.pred %p3, %p2, !%p1; selp.u32 %r9, 1, 0, %p3;", 1, 0,
       0, 1},
  });
}

TEST(Floating, Arithmetic) {
  const float inf = HUGE_VALF;
  check_cases({
      {"add.f32 %r9, %r0, %r1;", f(1.5f), f(2.25f), 0, f(3.75f)},
      {"add.rn.f32 %r9, %r0, %r1;", f(16777216.0f), f(1.0f), 0, f(16777216.0f)},
      {"add.ftz.f32 %r9, %r0, %r1;", 1, 0, 0, 0},
      {"add.f32 %r9, %r0, %r1;", 1, 0, 0, 1},
      {"add.sat.f32 %r9, %r0, %r1;", f(0.75f), f(0.75f), 0, f(1.0f)},
      {"sub.f32 %r9, %r0, %r1;", f(1.0f), f(4.0f), 0, f(-3.0f)},
      {"mul.f32 %r9, %r0, %r1;", f(-3.0f), f(0.5f), 0, f(-1.5f)},
      {"fma.rn.f32 %r9, %r0, %r1, %r2;", f(1.0f + 0x1p-23f), f(1.0f - 0x1p-23f), f(-1.0f), f(-0x1p-46f)},
      {"fma.rn.f64 %q9, %q0, %q1, %q2;", d(3.0), d(5.0), d(0.25), d(15.25)},
      {"div.rn.f32 %r9, %r0, %r1;", f(1.0f), f(3.0f), 0, f(1.0f / 3.0f)},
      {"rcp.rn.f32 %r9, %r0;", f(4.0f), 0, 0, f(0.25f)},
      {"sqrt.rn.f32 %r9, %r0;", f(2.0f), 0, 0, f(1.41421356f)},
      {"rsqrt.approx.f32 %r9, %r0;", f(16.0f), 0, 0, f(0.25f)},
      {"ex2.approx.ftz.f32 %r9, %r0;", f(-3.0f), 0, 0, f(0.125f)},
      {"ex2.approx.ftz.f32 %r9, %r0;", f(-inf), 0, 0, f(0.0f)},
      {"lg2.approx.ftz.f32 %r9, %r0;", f(32.0f), 0, 0, f(5.0f)},
      {"lg2.approx.ftz.f32 %r9, %r0;", f(0.0f), 0, 0, f(-inf)},
      {"tanh.approx.f32 %r9, %r0;", f(40.0f), 0, 0, f(1.0f)},
      {"sin.approx.f32 %r9, %r0;", f(0.0f), 0, 0, f(0.0f)},
      {"cos.approx.f32 %r9, %r0;", f(0.0f), 0, 0, f(1.0f)},
      {"min.f32 %r9, %r0, %r1;", kNan, f(2.0f), 0, f(2.0f)},
      {"max.f32 %r9, %r0, %r1;", f(-0.0f), f(0.0f), 0, f(0.0f)},
      {"max.NaN.f32 %r9, %r0, %r1; setp.nan.f32 %p1, %r9, %r9; selp.u32 %r9, 1, 0, %p1;", kNan, f(2.0f), 0,
       1},
      {"neg.f32 %r9, %r0;", f(2.0f), 0, 0, f(-2.0f)},
      {"abs.f32 %r9, %r0;", f(-2.0f), 0, 0, f(2.0f)},
      {"copysign.f32 %r9, %r0, %r1;", f(-1.0f), f(3.0f), 0, f(-3.0f)},
      {"add.f64 %q9, %q0, %q1;", d(0.1), d(0.2), 0, d(0.1 + 0.2)},
      // Half precision: 0x3c00 = 1, 0x4000 = 2, 0x4200 = 3; bf16: 0x3f80 = 1, 0x4000 = 2, 0x4040 = 3.
      {"add.f16 %s9, %s0, %s1;", 0x3c00, 0x4000, 0, 0x4200},
      {"add.f16x2 %r9, %r0, %r1;", 0x40003c00, 0x3c003c00, 0, 0x42004000},
      {"fma.rn.f16x2 %r9, %r0, %r1, %r2;", 0x40003c00, 0x3c003c00, 0x3c003c00, 0x42004000},
      {"fma.rn.bf16x2 %r9, %r0, %r1, %r2;", 0x40003f80, 0x3f803f80, 0x3f803f80, 0x40404000},
      {"mul.bf16x2 %r9, %r0, %r1;", 0x40003f80, 0x40003f80, 0, 0x40803f80},
      {"max.bf16x2 %r9, %r0, %r1;", 0x40003f80, 0x3f804000, 0, 0x40004000},
      {"neg.bf16x2 %r9, %r0;", 0x40003f80, 0, 0, 0xc000bf80},
  });
}

TEST(Compare, Predicates) {
  const auto with = [](const char* test) { return std::string(test) + " selp.u32 %r9, 1, 0, %p1;"; };
  const auto one = [&](const char* test, uint64_t a, uint64_t b, uint64_t expected) {
    EXPECT_EQ(evaluate({with(test).c_str(), a, b, 0, 0}), expected) << test;
  };
  one("setp.eq.s32 %p1, %r0, %r1;", 3, 3, 1);
  one("setp.lt.s32 %p1, %r0, %r1;", kMinus1, 0, 1);
  one("setp.lt.u32 %p1, %r0, %r1;", kMinus1, 0, 0);
  one("setp.lo.u32 %p1, %r0, %r1;", 0, kMinus1, 1);
  one("setp.ge.s64 %p1, %q0, %q1;", ~0ull, 0, 0);
  one("setp.hs.u64 %p1, %q0, %q1;", ~0ull, 0, 1);
  one("setp.lt.f32 %p1, %r0, %r1;", f(1), f(2), 1);
  one("setp.ne.f32 %p1, %r0, %r1;", kNan, f(2), 0);
  one("setp.neu.f32 %p1, %r0, %r1;", kNan, f(2), 1);
  one("setp.ltu.f32 %p1, %r0, %r1;", kNan, f(2), 1);
  one("setp.num.f32 %p1, %r0, %r1;", kNan, f(2), 0);
  one("setp.gt.f16 %p1, %s0, %s1;", 0x4000, 0x3c00, 1);
  one("setp.lt.s16 %p1, %s0, %s1;", 0x8000, 0, 1);
  one("setp.eq.s32 %p2, %r0, 1; setp.lt.and.s32 %p1, %r0, %r1, %p2;", 1, 2, 1);
  one("setp.eq.s32 %p2, %r0, 1; setp.lt.and.s32 %p1, %r0, %r1, !%p2;", 1, 2, 0);
  one("setp.eq.s32 %p2, %r0, 1; setp.gt.or.s32 %p1, %r0, %r1, %p2;", 1, 2, 1);
  one("setp.lt.s32 %p3|%p1, %r0, %r1;", 1, 2, 0);
  one("testp.infinite.f32 %p1, %r0;", f(HUGE_VALF), 0, 1);
  one("testp.subnormal.f32 %p1, %r0;", 1, 0, 1);
  EXPECT_EQ(evaluate({"slct.b32.s32 %r9, %r0, %r1, %r2;", 4, 5, kMinus1, 0}), 5u);
}

TEST(Convert, Values) {
  check_cases({
      {"cvt.u32.u16 %r9, %s0;", 0xffff, 0, 0, 0xffff},
      {"cvt.s32.s16 %r9, %s0;", 0xffff, 0, 0, kMinus1},
      {"cvt.s32.s8 %r9, %r0;", 0x80, 0, 0, 0xffffff80},
      {"cvt.s64.s32 %q9, %r0;", kMinus1, 0, 0, ~0ull},
      {"cvt.u64.u32 %q9, %r0;", kMinus1, 0, 0, kMinus1},
      {"cvt.u32.u64 %r9, %q0;", 0x1234567890ull, 0, 0, 0x34567890},
      {"cvt.sat.u8.s32 %r9, %r0;", 300, 0, 0, 255},
      {"cvt.rn.f32.s32 %r9, %r0;", kMinus1, 0, 0, f(-1.0f)},
      {"cvt.rn.f32.u32 %r9, %r0;", kMinus1, 0, 0, f(4294967296.0f)},
      {"cvt.rn.f32.s64 %r9, %q0;", 1ull << 40, 0, 0, f(0x1p40f)},
      {"cvt.rzi.s32.f32 %r9, %r0;", f(-2.7f), 0, 0, static_cast<uint32_t>(-2)},
      {"cvt.rni.s32.f32 %r9, %r0;", f(2.5f), 0, 0, 2},
      {"cvt.rmi.s32.f32 %r9, %r0;", f(-2.1f), 0, 0, static_cast<uint32_t>(-3)},
      {"cvt.rpi.s32.f32 %r9, %r0;", f(2.1f), 0, 0, 3},
      {"cvt.rzi.u32.f32 %r9, %r0;", f(-5.0f), 0, 0, 0},
      {"cvt.rzi.s32.f32 %r9, %r0;", f(1e20f), 0, 0, 0x7fffffff},
      {"cvt.rmi.f32.f32 %r9, %r0;", f(2.7f), 0, 0, f(2.0f)},
      {"cvt.rn.f16.f32 %s9, %r0;", f(1.0f + 0x1p-11f), 0, 0, 0x3c00},  // a tie goes to even
      {"cvt.rn.f16.f32 %s9, %r0;", f(1e6f), 0, 0, 0x7c00},
      {"cvt.rn.bf16.f32 %s9, %r0;", f(1.0f + 0x1p-8f), 0, 0, 0x3f80},
      {"cvt.rn.bf16.f32 %s9, %r0;", f(1.0f + 0x3p-8f), 0, 0, 0x3f82},
      {"cvt.rn.relu.bf16.f32 %s9, %r0;", f(-1.0f), 0, 0, 0},
      {"cvt.f32.f16 %r9, %s0;", 0x3555, 0, 0, f(0.333251953125f)},
      {"cvt.f32.bf16 %r9, %s0;", 0x4040, 0, 0, f(3.0f)},
      {"cvt.rn.bf16x2.f32 %r9, %r0, %r1;", f(2.0f), f(1.0f), 0, 0x40003f80},  // the first is the upper half
      {"cvt.rn.f16x2.f32 %r9, %r0, %r1;", f(2.0f), f(1.0f), 0, 0x40003c00},
      {"cvt.rna.tf32.f32 %r9, %r0;", 0x3f801000, 0, 0, 0x3f802000},
      {"cvt.f64.f32 %q9, %r0;", f(0.1f), 0, 0, d(0.1f)},
      {"cvt.rn.f32.f64 %r9, %q0;", d(0.1), 0, 0, f(0.1f)},
  });
}

TEST(Decoder, NamesWhatItDoesNotKnow) {
  const auto message = [](const std::string& body) -> std::string {
    try {
      Module::parse(module_text(body), "x.ptx");
    } catch (const DataError& e) {
      return e.what();
    }
    return "nothing thrown";
  };
  EXPECT_NE(
      message("vadd4.u32.u32.u32 %r0, %r1, %r2, %r3;").find("opcode vadd4.u32.u32.u32 is not supported"),
      std::string::npos);
  EXPECT_NE(message("vadd4.u32.u32.u32 %r0, %r1, %r2, %r3;").find("x.ptx:"), std::string::npos);
  EXPECT_NE(message("add.rz.f32 %r0, %r1, %r2;").find("modifier .rz"), std::string::npos);
  EXPECT_NE(message("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%r0,%r1,%r2,%r3}, {%r4,%r5,%r6,%r7}, "
                    "{%r8,%r9}, {%r0,%r1,%r2,%r3};")
                .find("not supported"),
            std::string::npos);
  EXPECT_NE(message("add.u32 %r0, %q1, %r2;").find("width"), std::string::npos);
  EXPECT_NE(message("bra $nowhere;").find("label $nowhere"), std::string::npos);
  EXPECT_NE(message("add.u32 %r0, %r1, %x2;").find("register %x2"), std::string::npos);
}

}  // namespace
}  // namespace longreach::ptx
