#include "tests/ptx/interpreter/tensor_core.h"

#include "core/error.h"
#include "tests/ptx/interpreter/decoder.h"
#include "tests/ptx/interpreter/lanes.h"
#include "tests/ptx/interpreter/load_store.h"
#include "tests/ptx/interpreter/tensor_sum.h"

namespace longreach::ptx {
namespace {

// The tensor core reads 19 bits of a TF32 register.
float element32(uint32_t bits) { return std::bit_cast<float>(bits & 0xffffe000u); }

// Elements added at once.
template <class T>
inline constexpr unsigned kBlock = kAmpereBytes / sizeof(T);

// One warp's 16 x 8 tile.
struct Tile {
  Factor<16, 16> a;
  Factor<16, 8> b;
  alignas(64) float c[16][8];

  template <class T, unsigned Depth>
  void multiply() {
    a.find_exponents(16, Depth);
    b.find_exponents(Depth, 8);
    for (unsigned r = 0; r < 16; ++r)
      add_products<Depth, std::min(Depth, kBlock<T>), kAmpereFraction>(c[r], a, r, b, 0);
  }
};

// Places of up to 8 elements of all lanes in a matrix with `Columns` columns, worked out once.
template <Place2 (*Place)(unsigned, unsigned), unsigned Columns>
constexpr auto places() {
  std::array<std::array<uint16_t, 32>, 8> all{};
  for (unsigned e = 0; e < 8; ++e) {
    for (unsigned l = 0; l < 32; ++l)
      all[e][l] = static_cast<uint16_t>(Place(l, e).row * Columns + Place(l, e).column);
  }
  return all;
}
constexpr auto kA16 = places<mma_a16, 16>();
constexpr auto kA32 = places<mma_a32, 16>();
constexpr auto kB16 = places<mma_b16, 8>();
constexpr auto kB32 = places<mma_b32, 8>();
constexpr auto kC = places<mma_c, 8>();

template <class T>
struct FragmentPlaces {
  static constexpr const auto& a = kA16;
  static constexpr const auto& b = kB16;
};
template <>
struct FragmentPlaces<float> {
  static constexpr const auto& a = kA32;
  static constexpr const auto& b = kB32;
};

const uint32_t* lanes_of(const Warp& w, const Operand& o) { return w.lanes<uint32_t>(o); }

// Spreads a register of A or B, which holds two 16-bit elements or one of TF32, over its matrix.
template <class T, class Places>
void spread(float* matrix, const Places& places, unsigned r, const uint32_t* x) {
  for (unsigned l = 0; l < 32; ++l) {
    if constexpr (std::is_same_v<T, float>) {
      matrix[places[r][l]] = element32(x[l]);
    } else {
      matrix[places[2 * r][l]] = to_float(T{static_cast<uint16_t>(x[l])});
      matrix[places[2 * r + 1][l]] = to_float(T{static_cast<uint16_t>(x[l] >> 16)});
    }
  }
}

// values: 4 of D, then A, B and 4 of C.
template <class T, unsigned Depth>
Step multiply(Warp& w, const Instruction& i, uint32_t mask) {
  if (mask != ~0u) w.block->error(w, 0, "mma.sync by part of a warp");
  constexpr unsigned kARegisters = Depth / (std::is_same_v<T, float> ? 2 : 4);
  Tile tile;
  const Operand* o = &i.values[4];
  for (unsigned r = 0; r < kARegisters; ++r)
    spread<T>(&tile.a.x[0][0], FragmentPlaces<T>::a, r, lanes_of(w, *o++));
  for (unsigned r = 0; r < kARegisters / 2; ++r)
    spread<T>(&tile.b.x[0][0], FragmentPlaces<T>::b, r, lanes_of(w, *o++));
  float* c = &tile.c[0][0];
  for (unsigned e = 0; e < 4; ++e) {
    const uint32_t* x = lanes_of(w, *o++);
    for (unsigned l = 0; l < 32; ++l) c[kC[e][l]] = std::bit_cast<float>(x[l]);
  }
  tile.multiply<T, Depth>();
  for (unsigned e = 0; e < 4; ++e) {
    uint32_t* d = w.lanes<uint32_t>(i.values[e]);
    for (unsigned l = 0; l < 32; ++l) d[l] = std::bit_cast<uint32_t>(c[kC[e][l]]);
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
  i.writes = 4;
  i.offset[0] = k16 ? 16 : k8 ? 8 : 4;
  if (a == Type::bf16) i.handler = k16 ? multiply<Bfloat, 16> : multiply<Bfloat, 8>;
  if (a == Type::f16) i.handler = k16 ? multiply<Half, 16> : multiply<Half, 8>;
  if (wide) i.handler = k8 ? multiply<float, 8> : multiply<float, 4>;
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
      const auto [r, c] = ldmatrix_element(l, 0);
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
      const auto [r, c] = ldmatrix_element(l, 0);
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
  if (Load) i.writes = static_cast<uint8_t>(matrices);
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
