#include "tests/ptx/tensor_core.h"

#include "core/error.h"
#include "tests/ptx/decoder.h"
#include "tests/ptx/lanes.h"
#include "tests/ptx/load_store.h"

namespace longreach::ptx {
namespace {

float element16(Type type, uint32_t bits) {
  return type == Type::bf16 ? to_float(Bfloat{static_cast<uint16_t>(bits)})
                            : to_float(Half{static_cast<uint16_t>(bits)});
}
// The tensor core reads 19 bits of a TF32 register.
float element32(uint32_t bits) { return std::bit_cast<float>(bits & 0xffffe000u); }

// One warp's 16 x 8 tile: products are exact in fp32, sums run in fp32 in the order of k.
struct Tile {
  alignas(64) float a[16][16];
  alignas(64) float b[16][8];
  alignas(64) float c[16][8];

  void multiply(unsigned depth) {
    for (unsigned r = 0; r < 16; ++r) {
      for (unsigned k = 0; k < depth; ++k) {
        for (unsigned n = 0; n < 8; ++n) c[r][n] = __builtin_fmaf(a[r][k], b[k][n], c[r][n]);
      }
    }
  }
};

const uint32_t* lanes_of(const Warp& w, const Operand& o) { return w.lanes<uint32_t>(o); }

// values: 4 of D, then A, B and 4 of C.
template <bool Wide>
Step multiply(Warp& w, const Instruction& i, uint32_t mask) {
  if (mask != ~0u) w.block->error(w, 0, "mma.sync by part of a warp");
  const auto depth = static_cast<unsigned>(i.offset[0]);
  const unsigned a_registers = depth / (Wide ? 2 : 4), b_registers = a_registers / 2;
  Tile tile;
  const Operand* o = &i.values[4];
  for (unsigned r = 0; r < a_registers; ++r) {
    const uint32_t* x = lanes_of(w, *o++);
    for (unsigned l = 0; l < 32; ++l) {
      if constexpr (Wide) {
        const Place2 p = mma_a32(l, r);
        tile.a[p.row][p.column] = element32(x[l]);
      } else {
        const Place2 p = mma_a16(l, 2 * r);
        tile.a[p.row][p.column] = element16(i.type, x[l]);
        tile.a[p.row][p.column + 1] = element16(i.type, x[l] >> 16);
      }
    }
  }
  for (unsigned r = 0; r < b_registers; ++r) {
    const uint32_t* x = lanes_of(w, *o++);
    for (unsigned l = 0; l < 32; ++l) {
      if constexpr (Wide) {
        const Place2 p = mma_b32(l, r);
        tile.b[p.row][p.column] = element32(x[l]);
      } else {
        const Place2 p = mma_b16(l, 2 * r);
        tile.b[p.row][p.column] = element16(i.type, x[l]);
        tile.b[p.row + 1][p.column] = element16(i.type, x[l] >> 16);
      }
    }
  }
  for (unsigned e = 0; e < 4; ++e) {
    const uint32_t* x = lanes_of(w, *o++);
    for (unsigned l = 0; l < 32; ++l)
      tile.c[mma_c(l, e).row][mma_c(l, e).column] = std::bit_cast<float>(x[l]);
  }
  tile.multiply(depth);
  for (unsigned e = 0; e < 4; ++e) {
    uint32_t* d = w.lanes<uint32_t>(i.values[e]);
    for (unsigned l = 0; l < 32; ++l)
      d[l] = std::bit_cast<uint32_t>(tile.c[mma_c(l, e).row][mma_c(l, e).column]);
  }
  return Step::next;
}

void decode_mma(Decoder& d, Instruction& i) {
  d.allow({"sync", "aligned"});
  if (!d.has("row") || !d.has("col")) d.fail("mma is supported as .row.col alone");
  const bool k16 = d.has("m16n8k16"), k8 = d.has("m16n8k8"), k4 = d.has("m16n8k4");
  const Type sum = d.type(), a = d.type(), b = d.type(), c = d.type();
  const bool wide = a == Type::tf32;
  const bool narrow = a == Type::f16 || a == Type::bf16;
  const bool known = (narrow && (k16 || k8)) || (wide && (k8 || k4));
  if (!known || a != b || sum != Type::f32 || c != Type::f32)
    d.fail("this shape of mma or these types are not supported");
  i.type = a;
  i.offset[0] = k16 ? 16 : k8 ? 8 : 4;
  i.handler = wide ? multiply<true> : multiply<false>;
  i.together = Together::warp;
  const unsigned a_registers = static_cast<unsigned>(i.offset[0]) / (wide ? 2 : 4);
  const size_t counts[] = {4, a_registers, a_registers / 2, 4};
  for (unsigned k = 0; k < 4; ++k) {
    const std::vector<Operand> part = d.list(d.operand(k), Type::b32);
    if (part.size() != counts[k]) d.fail("lists another number of registers than its shape has");
    i.values.insert(i.values.end(), part.begin(), part.end());
  }
}

// flags: transposed. Lane i gives the address of row i % 8 of matrix i / 8.
Step load_matrix(Warp& w, const Instruction& i, uint32_t mask) {
  if (mask != ~0u) w.block->error(w, 0, "ldmatrix by part of a warp");
  const unsigned matrices = static_cast<unsigned>(i.values.size());
  uint16_t rows[32][8];
  const uint32_t asked = matrices == 4 ? ~0u : (1u << 8 * matrices) - 1;
  if (w.block->context->options->profile) count_traffic(w, i, asked, 16);
  const uint32_t saved = w.code;
  for (unsigned l = 0; l < 8 * matrices; ++l) {
    const std::byte* at =
        resolve(w, i, kManyLanes, w.value(i.source[0], l) + static_cast<uint64_t>(i.offset[0]), 16, {});
    if (at) {
      std::memcpy(rows[l], at, 16);
    } else {
      std::memset(rows[l], 0, 16);
    }
  }
  w.code = saved;
  for (unsigned m = 0; m < matrices; ++m) {
    uint32_t* d = w.lanes<uint32_t>(i.values[m]);
    for (unsigned l = 0; l < 32; ++l) {
      const unsigned r = l / 4, c = l % 4 * 2;
      d[l] = i.flags ? rows[8 * m + c][r] | uint32_t{rows[8 * m + c + 1][r]} << 16
                     : rows[8 * m + r][c] | uint32_t{rows[8 * m + r][c + 1]} << 16;
    }
  }
  return Step::next;
}

Step store_matrix(Warp& w, const Instruction& i, uint32_t mask) {
  if (mask != ~0u) w.block->error(w, 0, "stmatrix by part of a warp");
  const unsigned matrices = static_cast<unsigned>(i.values.size());
  uint16_t rows[32][8];
  for (unsigned m = 0; m < matrices; ++m) {
    const uint32_t* x = lanes_of(w, i.values[m]);
    for (unsigned l = 0; l < 32; ++l) {
      const unsigned r = l / 4, c = l % 4 * 2;
      const auto low = static_cast<uint16_t>(x[l]), high = static_cast<uint16_t>(x[l] >> 16);
      (i.flags ? rows[8 * m + c][r] : rows[8 * m + r][c]) = low;
      (i.flags ? rows[8 * m + c + 1][r] : rows[8 * m + r][c + 1]) = high;
    }
  }
  const uint32_t asked = matrices == 4 ? ~0u : (1u << 8 * matrices) - 1;
  if (w.block->context->options->profile) count_traffic(w, i, asked, 16);
  for (unsigned l = 0; l < 8 * matrices; ++l) {
    std::byte* at = resolve(w, i, kManyLanes, w.value(i.source[0], l) + static_cast<uint64_t>(i.offset[0]),
                            16, {.access = Access::write});
    if (at) std::memcpy(at, rows[l], 16);
  }
  return Step::next;
}

template <bool Load>
void decode_matrix(Decoder& d, Instruction& i) {
  d.allow({"sync", "aligned", "b16"});
  if (!d.has("m8n8")) d.fail("matrices other than .m8n8 are not supported");
  const unsigned matrices = d.has("x4") ? 4 : d.has("x2") ? 2 : 1;
  d.has("x1");
  i.flags = d.has("trans");
  i.space = d.has("shared") || d.has("shared::cta") ? Space::shared : Space::generic;
  i.handler = Load ? load_matrix : store_matrix;
  i.together = Together::warp;
  i.values = d.list(d.operand(Load ? 0 : 1), Type::b32);
  if (i.values.size() != matrices) d.fail("lists another number of registers than its shape has");
  i.source[0] = d.address(d.operand(Load ? 1 : 0), i.offset[0], i.space);
}

}  // namespace

void add_tensor_core(DecodeTable& table) {
  table["mma"] = decode_mma;
  table["ldmatrix"] = decode_matrix<true>;
  table["stmatrix"] = decode_matrix<false>;
}

}  // namespace longreach::ptx
