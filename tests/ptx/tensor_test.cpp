// Micro-tests of tensor-core and bulk-copy instructions: PTX written by hand, results from plain loops. The
// layouts used here are checked against CuTe in cute_layouts_interop_test.cpp.
#include "tests/ptx/interpreter/tensor_core.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "tests/ptx/interpreter/one_block.h"
#include "tests/ptx/interpreter/types.h"
#include "tests/ptx/interpreter/wgmma.h"

namespace longreach::ptx {
namespace {

// Small integers, exact in every type.
float a_value(unsigned row, unsigned k) {
  return static_cast<float>(static_cast<int>((row * 7 + k * 3) % 11) - 5);
}
float b_value(unsigned k, unsigned n) {
  return static_cast<float>(static_cast<int>((k * 5 + n * 2) % 9) - 4);
}
float c_value(unsigned row, unsigned n) { return static_cast<float>(row) - static_cast<float>(n); }

uint32_t bits16(float x, bool bf16) { return bf16 ? to_bfloat(x).bits : to_half(x).bits; }

// Loads %r0... from in[lane * 16 + register].
std::string load_registers(unsigned count) {
  std::string text = "mad.wide.u32 %q1, %thread, 128, %in;\n";
  for (unsigned k = 0; k < count; ++k)
    text += "ld.global.u32 %r" + std::to_string(k) + ", [%q1+" + std::to_string(8 * k) + "];\n";
  return text;
}

std::string store_registers(unsigned first, unsigned count) {
  std::string text = "mad.wide.u32 %q2, %thread, " + std::to_string(8 * count) + ", %out;\n";
  for (unsigned k = 0; k < count; ++k) {
    text += "cvt.u64.u32 %q3, %r" + std::to_string(first + k) + ";\nst.global.u64 [%q2+" +
            std::to_string(8 * k) + "], %q3;\n";
  }
  return text;
}

std::string registers(unsigned first, unsigned count) {
  std::string text = "{";
  for (unsigned k = 0; k < count; ++k) text += (k ? ", %r" : "%r") + std::to_string(first + k);
  return text + "}";
}

// Factors and sums of a product as functions of row and column.
struct Matrices {
  std::function<float(unsigned, unsigned)> a, b, c;
};

// D [16, 8] of one mma.sync.
std::vector<float> mma(const std::string& types, unsigned depth, const Matrices& m) {
  const bool wide = types == "tf32", bf16 = types == "bf16";
  const unsigned na = depth / (wide ? 2 : 4), nb = na / 2;
  std::vector<uint64_t> in(32 * 16);
  for (unsigned l = 0; l < 32; ++l) {
    for (unsigned r = 0; r < na + nb; ++r) {
      const bool is_a = r < na;
      const unsigned e = is_a ? r : r - na;
      const auto value = [&](Place2 p) { return is_a ? m.a(p.row, p.column) : m.b(p.row, p.column); };
      if (wide) {
        in[l * 16 + r] = std::bit_cast<uint32_t>(value(is_a ? mma_a32(l, e) : mma_b32(l, e)));
      } else {
        const auto at = [&](unsigned k) {
          return bits16(value(is_a ? mma_a16(l, 2 * e + k) : mma_b16(l, 2 * e + k)), bf16);
        };
        in[l * 16 + r] = at(0) | at(1) << 16;
      }
    }
    for (unsigned e = 0; e < 4; ++e)
      in[l * 16 + na + nb + e] = std::bit_cast<uint32_t>(m.c(mma_c(l, e).row, mma_c(l, e).column));
  }
  const std::string text = load_registers(na + nb + 4) + "mma.sync.aligned.m16n8k" + std::to_string(depth) +
                           ".row.col.f32." + types + "." + types + ".f32 " + registers(20, 4) + ", " +
                           registers(0, na) + ", " + registers(na, nb) + ", " + registers(na + nb, 4) +
                           ";\n" + store_registers(20, 4);
  const Result r = run_text(text, in, 32 * 4);
  EXPECT_TRUE(r.report.errors.empty()) << r.report.text();
  std::vector<float> d(128);
  for (unsigned l = 0; l < 32; ++l)
    for (unsigned e = 0; e < 4; ++e)
      d[mma_c(l, e).row * 8 + mma_c(l, e).column] =
          std::bit_cast<float>(static_cast<uint32_t>(r.out[l * 4 + e]));
  return d;
}

void expect_mma(const std::string& types, unsigned depth) {
  const std::vector<float> d = mma(types, depth, {a_value, b_value, c_value});
  for (unsigned row = 0; row < 16; ++row)
    for (unsigned n = 0; n < 8; ++n) {
      float sum = c_value(row, n);
      for (unsigned k = 0; k < depth; ++k) sum += a_value(row, k) * b_value(k, n);
      EXPECT_EQ(d[row * 8 + n], sum) << types << " " << depth;
    }
}

TEST(TensorCore, Mma) {
  expect_mma("bf16", 16);
  expect_mma("f16", 16);
  expect_mma("bf16", 8);
  expect_mma("f16", 8);
  expect_mma("tf32", 8);
  expect_mma("tf32", 4);
}

// sum + the products of `count` pairs of factors, of which `first` is the first and each is a power of two.
float add_powers(const std::string& types, unsigned depth, float sum, float product, unsigned first,
                 unsigned count) {
  return mma(types, depth,
             {[&](unsigned, unsigned k) { return k >= first && k < first + count ? product : 0.0f; },
              [](unsigned, unsigned) { return 1.0f; }, [&](unsigned, unsigned) { return sum; }})[0];
}

TEST(TensorCore, SumsAreCutOffTowardZero) {
  const float bit = 0x1p-23f;  // the last of 1
  for (const char* types : {"bf16", "f16", "tf32"}) {
    const unsigned depth = types[0] == 't' ? 8 : 16, block = depth / 2;
    SCOPED_TRACE(types);
    const float large = std::string(types) == "f16" ? 0x1p10f : 1.0f;  // fp16 ends at 2^-24
    const auto add = [&](float sum, float product, unsigned first, unsigned count) {
      return add_powers(types, depth, sum * large, product * large, first, count) / large;
    };
    EXPECT_EQ(add(1, 1.5f * bit, 0, 1), 1 + bit);  // to nearest: 1 + 2 bit
    EXPECT_EQ(add(-1, -1.5f * bit, 0, 1), -1 - bit);
    EXPECT_EQ(add(1, bit / 2, 0, 2), 1 + bit);                  // one bit more takes part,
    EXPECT_EQ(add(1, bit / 4, 0, 4), 1);                        // and none below it
    EXPECT_EQ(add(1, bit / 2, 0, block), 1 + block / 2 * bit);  // a block is added at once,
    EXPECT_EQ(add(1, bit / 2, block - 1, 2), 1);                // two are not
    EXPECT_EQ(add(0x1p-30f, bit / 4, 0, 4), 0x1p-30f + bit);    // what is added to decides
  }
  EXPECT_EQ(add_powers("tf32", 8, 0x1p120f, 0x1p100f, 0, 8), 0x1p120f + 0x1p103f);
  EXPECT_EQ(add_powers("tf32", 8, std::numeric_limits<float>::infinity(), 1, 0, 8),
            std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(add_powers("tf32", 8, std::numeric_limits<float>::quiet_NaN(), 1, 0, 8)));
  EXPECT_TRUE(std::isnan(add_powers("tf32", 8, 1, std::numeric_limits<float>::quiet_NaN(), 0, 1)));
  EXPECT_EQ(add_powers("tf32", 8, 0, 0x1p-100f, 0, 8), 0x1p-97f);
}

const std::string kBuffer = ".extern .shared .align 1024 .b8 buffer[];";

TEST(TensorCore, LdmatrixAndStmatrix) {
  // Shared memory holds 32 rows of 8 elements, element (row, column) = 8 row + column.
  std::string fill =
      "mov.u32 %r50, buffer;\nshl.b32 %r51, %lane, 4;\nadd.u32 %r50, %r50, %r51;\nshl.b32 %r52, %lane, 3;\n";
  for (int k = 0; k < 8; ++k) {
    fill += "add.u32 %r53, %r52, " + std::to_string(k) + ";\ncvt.u16.u32 %s0, %r53;\nst.shared.u16 [%r50+" +
            std::to_string(2 * k) + "], %s0;\n";
  }
  fill += "bar.warp.sync -1;\n";
  for (const unsigned matrices : {1u, 2u, 4u}) {
    for (const bool turned : {false, true}) {
      const std::string form =
          ".sync.aligned.m8n8.x" + std::to_string(matrices) + (turned ? ".trans" : "") + ".shared.b16 ";
      const Result r = run_text(
          fill + "ldmatrix" + form + registers(0, matrices) + ", [%r50];\n" + store_registers(0, matrices),
          {0}, 32 * matrices, 32, 512, kBuffer);
      EXPECT_TRUE(r.report.errors.empty()) << r.report.text();
      for (unsigned l = 0; l < 32; ++l) {
        for (unsigned m = 0; m < matrices; ++m) {
          const auto element = [&](unsigned e) {
            return turned ? 8 * (8 * m + l % 4 * 2 + e) + l / 4 : 8 * (8 * m + l / 4) + l % 4 * 2 + e;
          };
          EXPECT_EQ(r.out[l * matrices + m], element(0) | element(1) << 16);
        }
      }
      // What stmatrix writes, ldmatrix reads.
      const std::string there =
          "stmatrix" + form + "[%r50+1024], " + registers(0, matrices) + ";\nbar.warp.sync -1;\n";
      const Result back =
          run_text(fill + "ldmatrix" + form + registers(0, matrices) + ", [%r50];\n" + there + "ldmatrix" +
                       form + registers(8, matrices) + ", [%r50+1024];\n" + store_registers(8, matrices),
                   {0}, 32 * matrices, 32, 2048, kBuffer);
      EXPECT_TRUE(back.report.errors.empty()) << back.report.text();
      EXPECT_EQ(back.out, r.out);
    }
  }
}

TEST(TensorCore, LdmatrixNeedsWarpSync) {
  const Result r = run_text(
      "mov.u32 %r50, buffer;\nshl.b32 %r51, %lane, 4;\nadd.u32 %r50, %r50, %r51;\nst.shared.v4.u32 [%r50], "
      "{%lane, %lane, %lane, %lane};\n"
      "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r0, %r1, %r2, %r3}, [%r50];\n",
      {0}, 1, 32, 512, kBuffer);
  EXPECT_TRUE(mentions(r.report, "no __syncwarp between")) << r.report.text();
}

// A 64 x 16 from registers or shared memory, B 8 x 16 from shared memory, both K-major without swizzle: 8 x 8
// pieces of 128 bytes, the two pieces along K one after another, the pieces along M or N 256 bytes apart.
// Returns D = -A B [64, 8].
std::vector<float> wgmma(bool from_registers, const Matrices& m) {
  std::vector<uint64_t> in(128 * 16);
  MatrixDescriptor a{.start = 0, .leading = 128, .stride = 256},
      b{.start = 4096, .leading = 128, .stride = 256};
  std::vector<uint16_t> shared(8192 / 2);
  for (unsigned k = 0; k < 16; ++k) {
    for (unsigned row = 0; row < 64; ++row)
      shared[a.address(row, k, false) / 2] = static_cast<uint16_t>(bits16(m.a(row, k), true));
    for (unsigned n = 0; n < 8; ++n)
      shared[b.address(n, k, false) / 2] = static_cast<uint16_t>(bits16(m.b(k, n), true));
  }
  // Thread t brings 64 bytes of shared memory and its registers of A.
  for (unsigned t = 0; t < 128; ++t) {
    for (unsigned k = 0; k < 4; ++k) {
      const auto at = [&](unsigned e) {
        return bits16(m.a(t / 32 * 16 + mma_a16(t % 32, e).row, mma_a16(t % 32, e).column), true);
      };
      in[t * 16 + k] = at(2 * k) | at(2 * k + 1) << 16;
    }
    for (unsigned k = 0; k < 8; ++k) std::memcpy(&in[t * 16 + 8 + k], &shared[t * 32 + 4 * k], 8);
  }
  std::string text = load_registers(4) + "mov.u32 %r50, buffer;\nmad.lo.u32 %r51, %thread, 64, %r50;\n";
  for (int k = 0; k < 8; ++k) {
    text += "ld.global.u64 %q4, [%q1+" + std::to_string(64 + 8 * k) + "];\nst.shared.u64 [%r51+" +
            std::to_string(8 * k) + "], %q4;\n";
  }
  const auto descriptor = [](uint32_t start) {
    return std::to_string(uint64_t{start >> 4} | 8ull << 16 | 16ull << 32);
  };
  text +=
      "fence.proxy.async.shared::cta;\nbar.sync 0;\nsetp.ne.u32 %p1, %thread, "
      "%thread;\nwgmma.fence.sync.aligned;\n";
  text += "mov.u64 %q5, " + descriptor(0) + ";\nmov.u64 %q6, " + descriptor(4096) + ";\n";
  text += std::string("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%r20, %r21, %r22, %r23}, ") +
          (from_registers ? "{%r0, %r1, %r2, %r3}, %q6, %p1, 1, -1, 0;\n" : "%q5, %q6, %p1, 1, -1, 0, 0;\n");
  text += "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n" + store_registers(20, 4);
  const Result r = run_text(text, in, 128 * 4, 128, 8192, kBuffer);
  EXPECT_TRUE(r.report.errors.empty()) << r.report.text();
  std::vector<float> d(64 * 8);
  for (unsigned t = 0; t < 128; ++t)
    for (unsigned e = 0; e < 4; ++e)
      d[wgmma_d(t, e).row * 8 + wgmma_d(t, e).column] =
          std::bit_cast<float>(static_cast<uint32_t>(r.out[t * 4 + e]));
  return d;
}

void expect_wgmma(bool from_registers) {
  const std::vector<float> d = wgmma(from_registers, {a_value, b_value, {}});
  for (unsigned row = 0; row < 64; ++row)
    for (unsigned n = 0; n < 8; ++n) {
      float sum = 0;
      for (unsigned k = 0; k < 16; ++k) sum -= a_value(row, k) * b_value(k, n);
      EXPECT_EQ(d[row * 8 + n], sum) << from_registers << " row " << row;
    }
}

TEST(TensorCore, Wgmma) {
  expect_wgmma(false);
  expect_wgmma(true);
}

TEST(TensorCore, WgmmaCutsOffTowardZero) {
  const auto add_to_one = [](float small) {
    return wgmma(true, {[&](unsigned, unsigned k) { return k == 5 ? -1.0f : -small; },
                        [](unsigned, unsigned) { return 1.0f; },
                        {}})[0];
  };
  EXPECT_EQ(add_to_one(0x1p-25f), 1 + 3 * 0x1p-23f);  // 15 quarters of the last bit: all are added at once,
  EXPECT_EQ(add_to_one(0x1p-26f), 1);                 // and two bits more take part
}

TEST(Bulk, PlainCopies) {
  // 64 bytes to shared memory and back to another place.
  const std::string text =
      "mov.u32 %r1, buffer;\nmbarrier.init.shared::cta.b64 [%r1+512], "
      "1;\nfence.mbarrier_init.release.cluster;\n"
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1+512], 64;\n"
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%in], 64, [%r1+512];\n"
      "$wait:\nmbarrier.try_wait.parity.shared::cta.b64 %p1, [%r1+512], 0;\n@!%p1 bra $wait;\n"
      "ld.shared.u64 %q1, [%r1+8];\nadd.u64 %q1, %q1, 100;\nst.shared.u64 [%r1+8], %q1;\n";
  const std::string store =
      "cp.async.bulk.global.shared::cta.bulk_group [%out], [%r1], 64;\ncp.async.bulk.commit_group;\n";
  const std::string wait = "cp.async.bulk.wait_group 0;\n";
  const auto go = [&](const std::string& body) {
    return run_text(body, {1, 2, 3, 4, 5, 6, 7, 8}, 8, 1, 1024, kBuffer);
  };
  const Result good = go(text + "fence.proxy.async.shared::cta;\n" + store + wait);
  EXPECT_TRUE(good.report.errors.empty()) << good.report.text();
  EXPECT_EQ(good.out, (std::vector<uint64_t>{1, 102, 3, 4, 5, 6, 7, 8}));
  EXPECT_TRUE(mentions(go(text + store + wait).report, "missing fence.proxy.async"));
  EXPECT_TRUE(
      mentions(go(text + "fence.proxy.async.shared::cta;\n" + store).report, "exits while a bulk store"));
  EXPECT_TRUE(mentions(
      go(text + "fence.proxy.async.shared::cta;\n" + store + "st.shared.u64 [%r1], %q1;\n" + wait).report,
      "may still read"));
}

TEST(Bulk, CpAsyncArrivesOnAnMbarrier) {
  const std::string text =
      "mov.u32 %r1, buffer;\nsetp.eq.u32 %p1, %thread, 0;\n@%p1 mbarrier.init.shared::cta.b64 [%r1+512], "
      "32;\nbar.sync 0;\nmad.lo.u32 %r2, %lane, 8, %r1;\n"
      "mad.wide.u32 %q1, %lane, 8, %in;\nmov.u64 %q5, 0;\nsetp.ge.u32 %p2, %thread, 32;\n@%p2 bra "
      "$read;\ncp.async.ca.shared.global [%r2], [%q1], 8;\n"
      "cp.async.mbarrier.arrive.noinc.shared.b64 [%r1+512];\nbra $end;\n$read:\n";
  const std::string wait =
      "$wait:\nmbarrier.try_wait.parity.shared::cta.b64 %p3, [%r1+512], 0;\n@!%p3 bra $wait;\n";
  const std::string rest =
      "ld.shared.u64 %q5, [%r2];\n$end:\nmad.wide.u32 %q3, %thread, 8, %out;\nst.global.u64 [%q3], %q5;\n";
  std::vector<uint64_t> in(32);
  for (size_t k = 0; k < 32; ++k) in[k] = k + 1000;
  const Result good = run_text(text + wait + rest, in, 64, 64, 1024, kBuffer);
  EXPECT_TRUE(good.report.errors.empty()) << good.report.text();
  EXPECT_EQ(good.out[40], 1008u);
  EXPECT_FALSE(run_text(text + rest, in, 64, 64, 1024, kBuffer).report.errors.empty());
}

struct BoxParameters {
  cuda::EncodedTensorMap map;
  float* out;
};

// Loads a box of 16 x 3 x 2 floats at (x, y, z) of a tensor of 20 x 5 x 4 and stores shared memory as it
// lies.
std::vector<float> load_box(int x, int y, int z, uint32_t swizzle, Report& report) {
  const uint32_t columns = swizzle ? swizzle / 4 : 16;
  std::vector<float> tensor(20 * 5 * 4);
  for (size_t k = 0; k < tensor.size(); ++k) tensor[k] = static_cast<float>(k + 1);
  const std::string body =
      "mov.u32 %r1, buffer;\nsetp.eq.u32 %p1, %tid.x, 0;\n@%p1 mbarrier.init.shared::cta.b64 [%r1+2048], 1;\n"
      "@%p1 fence.proxy.async.shared::cta;\nbar.sync 0;\nmov.b64 %q1, map;\ncvta.param.u64 %q2, %q1;\n"
      "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1+2048], " +
      std::to_string(columns * 4 * 6) +
      ";\n"
      "@%p1 cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%q2, {" +
      std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) +
      "}], [%r1+2048];\n"
      "$wait:\nmbarrier.try_wait.parity.shared::cta.b64 %p2, [%r1+2048], 0;\n@!%p2 bra $wait;\n"
      "mov.u32 %r2, %tid.x;\nmad.lo.u32 %r3, %r2, 4, %r1;\nld.shared.f32 %r4, [%r3];\nld.param.u64 %q3, "
      "[out];\nmad.wide.u32 %q4, %r2, 4, %q3;\nst.global.f32 [%q4], %r4;\n";
  const Module module = Module::parse(".version 8.0\n.target sm_90a\n.address_size 64\n" + kBuffer +
                                      "\n.visible .entry test(.param .align 64 .b8 map[128], .param .u64 "
                                      "out)\n{\n.reg .b32 %r<8>;\n.reg .b64 %q<8>;\n"
                                      ".reg .pred %p<4>;\n" +
                                      body + "ret;\n}\n");
  Memory memory;
  const float* data = memory.upload("tensor", tensor);
  BoxParameters p{};
  p.out = memory.allocate_array<float>("out", columns * 6);
  cuda::Launch launch = cuda::make_launch("test", {1}, {columns * 6}, 4096, p);
  launch.parameters.resize(136);  // the kernel's parameters end without the struct's padding
  launch.tensor_maps = {{0,
                         {.data = data,
                          .element_bytes = 4,
                          .rank = 3,
                          .size = {20, 5, 4},
                          .stride = {80, 400},
                          .box = {columns, 3, 2},
                          .swizzle_bytes = swizzle}}};
  report = run(module, launch, memory);
  return memory.download(p.out, columns * 6);
}

TEST(Bulk, BoxesAndTheirZeros) {
  for (const auto& [x, y, z] : {std::array{0, 0, 0}, std::array{12, 3, 3}, std::array{-4, -1, -1}}) {
    for (const uint32_t swizzle : {0u, 32u, 64u, 128u}) {
      Report report;
      const std::vector<float> found = load_box(x, y, z, swizzle, report);
      EXPECT_TRUE(report.errors.empty()) << report.text();
      const uint32_t columns = swizzle ? swizzle / 4 : 16;
      for (uint32_t place = 0; place < columns * 6; ++place) {
        const int cx = x + static_cast<int>(place % columns), cy = y + static_cast<int>(place / columns % 3),
                  cz = z + static_cast<int>(place / columns / 3);
        const bool inside = cx >= 0 && cx < 20 && cy >= 0 && cy < 5 && cz >= 0 && cz < 4;
        // 16-byte chunks of a row are permuted by the number of the row of 128 bytes.
        uint32_t byte = place * 4;
        if (swizzle) byte ^= (byte / 128 % (swizzle / 16)) * 16;
        EXPECT_EQ(found[byte / 4], inside ? static_cast<float>(1 + cx + 20 * cy + 100 * cz) : 0.0f)
            << swizzle << " place " << place;
      }
    }
  }
}

}  // namespace
}  // namespace longreach::ptx
