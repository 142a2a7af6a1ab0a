#include "tests/ptx/interpreter/wgmma.h"

#include "core/error.h"
#include "tests/ptx/interpreter/decoder.h"
#include "tests/ptx/interpreter/lanes.h"
#include "tests/ptx/interpreter/tensor_core.h"
#include "tests/ptx/interpreter/tensor_sum.h"

namespace longreach::ptx {

// What an unfinished wgmma holds: registers that it writes or reads, and 16-byte chunks of shared memory that
// it reads.
struct PendingTile {
  std::vector<uint32_t> writes, reads;  // registers
  std::vector<uint32_t> chunks;
};

namespace {

enum Flags : uint8_t { kARegisters = 1, kATransposed = 2, kBTransposed = 4, kNegateA = 8, kNegateB = 16 };

uint32_t register_of(const Operand& o) { return o.offset / 128; }

struct Operands {
  Factor<16, 16> a;
  Factor<16, 256> b;
  alignas(64) float c[16][256];
};

float element(Type type, uint16_t bits) {
  return type == Type::bf16 ? to_float(Bfloat{bits}) : to_float(Half{bits});
}

// Reads rows [first, first + count) of an operand, 16 deep, through the asynchronous proxy; put(row, k,
// value).
template <class Put>
void read_operand(Warp& w, const Instruction& i, uint64_t bits, bool mn_major, unsigned first, unsigned count,
                  PendingTile& tile, const Put& put) {
  const MatrixDescriptor d = MatrixDescriptor::decode(bits);
  if (d.base_offset) w.block->error(w, kManyLanes, "wgmma descriptor with a base offset is not supported");
  const AccessKind kind{.access = Access::read, .async = true, .lasting = true};
  const unsigned outer = mn_major ? 16 : count, inner = mn_major ? count : 16;
  for (unsigned o = 0; o < outer; ++o) {
    for (unsigned c = 0; c < inner; c += 8) {
      const unsigned row = mn_major ? c : o, k = mn_major ? o : c;
      const uint32_t address = d.address(first + row, k, mn_major);
      const std::byte* at = w.block->shared_access(w, kManyLanes, address, 16, kind);
      uint16_t values[8] = {};
      if (at) {
        std::memcpy(values, at, 16);
        tile.chunks.push_back(address);
      }
      for (unsigned e = 0; e < 8; ++e)
        put(mn_major ? row + e : row, mn_major ? k : k + e, element(i.type, values[e]));
    }
  }
}

// All warps of a warpgroup execute the same wgmma with the same descriptors.
void check_group(Warp& w, uint64_t a, uint64_t b) {
  Block& block = *w.block;
  if ((w.index / 4 + 1) * 4 > block.context->warps) {
    block.error(w, kManyLanes, "wgmma in a warpgroup of less than four warps");
    return;
  }
  auto& issued = block.issued[w.index / 4];
  const WgmmaIssue mine{w.code, a, b};
  if (w.issued == issued.size()) issued.push_back(mine);
  const WgmmaIssue& first = issued[w.issued++];
  if (first.code != mine.code || first.a != a || first.b != b) {
    block.error(w, kManyLanes, "warps of a warpgroup execute different wgmma or descriptors");
  }
}

void check_fence(Warp& w, const Operand& o) {
  if (w.register_stamps[register_of(o)] > w.fence_stamp) {
    w.block->error(w, kManyLanes, "missing wgmma.fence: registers were written since the last one");
  }
}

void hold(Warp& w, const Instruction& i, PendingTile& tile, size_t sums) {
  if (w.fence_stamp == 0) {
    w.block->error(w, kManyLanes, "missing wgmma.fence: none stands before the first wgmma");
  }
  for (size_t k = 0; k < i.values.size(); ++k) {
    const uint32_t r = register_of(i.values[k]);
    check_fence(w, i.values[k]);
    (k < sums ? tile.writes : tile.reads).push_back(r);
    (k < sums ? w.register_users : w.register_readers)[r]++;
  }
}

void read_a_registers(const Warp& w, const Instruction& i, size_t sums, Operands& m) {
  for (unsigned r = 0; r < 4; ++r) {
    const uint32_t* x = w.lanes<uint32_t>(i.values[sums + r]);
    for (unsigned l = 0; l < 32; ++l) {
      const Place2 p = mma_a16(l, 2 * r);
      m.a.x[p.row][p.column] = element(i.type, static_cast<uint16_t>(x[l]));
      m.a.x[p.row][p.column + 1] = element(i.type, static_cast<uint16_t>(x[l] >> 16));
    }
  }
}

void multiply(Operands& m, unsigned n, bool negative) {
  if (negative)
    for (auto& row : m.a.x)
      for (float& x : row) x = -x;
  m.a.find_exponents(16, 16);
  m.b.find_exponents(16, n);
  for (unsigned r = 0; r < 16; ++r)
    for (unsigned c = 0; c < n; c += kSums)
      add_products<16, kHopperBytes / 2, kHopperFraction>(&m.c[r][c], m.a, r, m.b, c);
}

// values: n / 2 sums, then 4 registers of A unless it lies in shared memory. source: 0 A's descriptor, 1 B's,
// 2 whether to add to the sums. The sums are in their registers at once; whoever touches them before the wait
// is reported.
Step multiply_async(Warp& w, const Instruction& i, uint32_t mask) {
  if (mask != ~0u) w.block->error(w, 0, "wgmma by part of a warp");
  const auto n = static_cast<unsigned>(i.offset[0]);
  const size_t sums = n / 2;
  const bool from_registers = i.flags & kARegisters;
  const uint64_t a = from_registers ? 0 : w.value(i.source[0], 0), b = w.value(i.source[1], 0);
  const bool accumulates = w.predicate(i.source[2]) & 1;
  check_group(w, a, b);
  const auto tile = std::make_shared<PendingTile>();
  hold(w, i, *tile, sums);
  static thread_local Operands m;
  if (from_registers) {
    read_a_registers(w, i, sums, m);
  } else {
    read_operand(w, i, a, i.flags & kATransposed, w.index % 4 * 16, 16, *tile,
                 [&](unsigned r, unsigned k, float x) { m.a.x[r][k] = x; });
  }
  read_operand(w, i, b, i.flags & kBTransposed, 0, n, *tile,
               [&](unsigned r, unsigned k, float x) { m.b.x[k][r] = x; });
  for (unsigned e = 0; e < sums; ++e) {
    const uint32_t* x = std::as_const(w).lanes<uint32_t>(i.values[e]);
    for (unsigned l = 0; l < 32; ++l)
      m.c[wgmma_d(l, e).row][wgmma_d(l, e).column] = accumulates ? std::bit_cast<float>(x[l]) : 0.0f;
  }
  multiply(m, n, !(i.flags & kNegateA) != !(i.flags & kNegateB));
  for (unsigned e = 0; e < sums; ++e) {
    uint32_t* d = w.lanes<uint32_t>(i.values[e]);
    for (unsigned l = 0; l < 32; ++l)
      d[l] = std::bit_cast<uint32_t>(m.c[wgmma_d(l, e).row][wgmma_d(l, e).column]);
  }
  w.open_tiles.push_back(tile);
  ++w.tiles_in_flight;
  return Step::next;
}

Step fence_registers(Warp& w, const Instruction&, uint32_t) {
  w.fence_stamp = w.stamp;
  return Step::next;
}

Step commit_tiles(Warp& w, const Instruction&, uint32_t) {
  w.tile_groups.push_back(std::move(w.open_tiles));
  w.open_tiles.clear();
  return Step::next;
}

void mark_chunks(Warp& w, const PendingTile& tile, uint32_t read) {
  for (const uint32_t address : tile.chunks) w.block->set_reads(w, {address, 16}, read);
}

Step wait_tiles(Warp& w, const Instruction& i, uint32_t) {
  constexpr uint32_t kTogether = 62;
  while (static_cast<int64_t>(w.tile_groups.size()) > i.offset[0]) {
    for (const auto& tile : w.tile_groups.front()) {
      for (const uint32_t r : tile->writes) --w.register_users[r];
      for (const uint32_t r : tile->reads) --w.register_readers[r];
      mark_chunks(w, *tile, w.time() << 6 | kTogether);
      --w.tiles_in_flight;
    }
    w.tile_groups.pop_front();
  }
  for (const auto& group : w.tile_groups) {
    for (const auto& tile : group) mark_chunks(w, *tile, kReading);
  }
  for (const auto& tile : w.open_tiles) mark_chunks(w, *tile, kReading);
  return Step::next;
}

bool immediate_is_minus(Decoder& d, size_t operand) { return d.immediate(operand) == -1; }

}  // namespace

void check_registers_in_flight(Warp& w, const Instruction& i) {
  const auto held = [&](const Operand& o, bool written) {
    if (!o.present || o.kind != Operand::kRegister) return false;
    const uint32_t r = register_of(o);
    return w.register_users[r] || (written && w.register_readers[r]);
  };
  bool found = held(i.destination, true);
  for (const Operand& o : i.source) found = found || held(o, false);
  for (size_t k = 0; k < i.values.size(); ++k) found = found || held(i.values[k], k < i.writes);
  if (found) w.block->error(w, kManyLanes, "touches registers of a wgmma that has not been waited for");
}

void stamp_registers(Warp& w, const Instruction& i) {
  ++w.stamp;
  const auto stamp = [&](const Operand& o) {
    if (o.present && o.kind == Operand::kRegister) w.register_stamps[register_of(o)] = w.stamp;
  };
  stamp(i.destination);
  for (size_t k = 0; k < i.writes; ++k) stamp(i.values[k]);
}

void decode_wgmma(Decoder& d, Instruction& i) {
  d.allow({"sync", "aligned"});
  i.together = Together::warp;
  i.space = Space::shared;
  i.wgmma = true;
  d.kernel().uses_wgmma = true;
  if (d.has("fence")) {
    i.handler = fence_registers;
    return;
  }
  if (d.has("commit_group")) {
    i.handler = commit_tiles;
    return;
  }
  if (d.has("wait_group")) {
    i.handler = wait_tiles;
    i.offset[0] = d.immediate(0);
    return;
  }
  if (!d.has("mma_async")) d.fail("is not supported");
  const std::string shape(d.take());
  const auto n_at = shape.find('n'), k_at = shape.find('k');
  if (!shape.starts_with("m64n") || k_at == std::string::npos || shape.substr(k_at) != "k16")
    d.fail("this shape is not supported");
  i.offset[0] = std::stoi(shape.substr(n_at + 1, k_at - n_at - 1));
  if (i.offset[0] % 8 || i.offset[0] < 8 || i.offset[0] > 256) d.fail("this shape is not supported");
  const Type sum = d.type();
  i.type = d.type();
  if (sum != Type::f32 || d.type() != i.type || (i.type != Type::f16 && i.type != Type::bf16))
    d.fail("these types are not supported");
  i.values = d.list(d.operand(0), Type::f32);
  if (static_cast<int64_t>(i.values.size()) * 2 != i.offset[0])
    d.fail("lists another number of sums than its shape has");
  const bool from_registers = d.operand(1).starts_with('{');
  if (from_registers) {
    const std::vector<Operand> a = d.list(d.operand(1), Type::b32);
    if (a.size() != 4) d.fail("A needs four registers");
    i.values.insert(i.values.end(), a.begin(), a.end());
    i.flags |= kARegisters;
  } else {
    i.source[0] = d.source(1, Type::b64);
  }
  i.source[1] = d.source(2, Type::b64);
  i.source[2] = d.predicate(d.operand(3));
  if (immediate_is_minus(d, 4)) i.flags |= kNegateA;
  if (immediate_is_minus(d, 5)) i.flags |= kNegateB;
  if (!from_registers && d.immediate(6)) i.flags |= kATransposed;
  if (d.immediate(from_registers ? 6 : 7)) i.flags |= kBTransposed;
  i.handler = multiply_async;
}

}  // namespace longreach::ptx
