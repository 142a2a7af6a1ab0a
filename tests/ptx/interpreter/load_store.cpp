#include "tests/ptx/interpreter/load_store.h"

#include "core/error.h"
#include "tests/ptx/interpreter/decoder.h"
#include "tests/ptx/interpreter/lanes.h"

namespace longreach::ptx {
namespace {

enum Flags : uint8_t { kStrong = 1, kAcquire = 2, kRelease = 4 };

std::byte* local_bytes(Warp& w, unsigned lane, uint64_t offset, unsigned bytes) {
  const uint32_t each = w.kernel->local_bytes;
  if (offset + bytes > each) {
    w.block->error(w, lane, "out of bounds of local memory", text(" at ", offset, " of ", each, " bytes"));
    return nullptr;
  }
  return &w.local[lane * size_t{each} + offset];
}

std::byte* parameter_bytes(Warp& w, unsigned lane, uint64_t offset, unsigned bytes, Access access) {
  auto& all = const_cast<std::vector<std::byte>&>(w.block->context->parameters);
  if (access != Access::read || offset + bytes > all.size()) {
    w.block->error(w, lane,
                   access == Access::read ? "out of bounds of the parameters" : "writes to the parameters",
                   text(" at ", offset, " of ", all.size(), " bytes"));
    return nullptr;
  }
  return &all[offset];
}

// A variable of the module, if the address lies in one.
std::byte* variable_bytes(Warp& w, unsigned lane, uint64_t address, unsigned bytes, Access access) {
  for (const GlobalVariable& v : w.block->context->module->variables) {
    const auto begin = reinterpret_cast<uint64_t>(v.data);
    if (address < begin || address + bytes > begin + v.bytes) continue;
    if (access == Access::read) return v.data + (address - begin);
    w.block->error(w, lane, "writes to a variable of the module, which is not supported", " " + v.name);
    return nullptr;
  }
  return nullptr;
}

}  // namespace

std::byte* resolve(Warp& w, const Instruction& i, unsigned lane, uint64_t address, unsigned bytes,
                   AccessKind kind) {
  Space space = i.space;
  if (space == Space::generic) {
    const uint64_t window = address & kWindowMask;
    space = window == kSharedWindow      ? Space::shared
            : window == kLocalWindow     ? Space::local
            : window == kParameterWindow ? Space::parameter
                                         : Space::global;
    address &= ~kWindowMask;
  }
  switch (space) {
    case Space::shared:
      return w.block->shared_access(w, lane, static_cast<uint32_t>(address), bytes, kind);
    case Space::local:
      return local_bytes(w, lane, address, bytes);
    case Space::parameter:
      return parameter_bytes(w, lane, address, bytes, kind.access);
    default:
      break;
  }
  if (!w.block->context->module->variables.empty()) {
    if (std::byte* found = variable_bytes(w, lane, address, bytes, kind.access)) return found;
  }
  return w.block->global_access(w, lane, address, bytes, kind);
}

void order_fence(Warp& w) {
  w.knows.join(w.gathered);
  w.released = w.knows;
  w.tick();
}

void order_atomic(Warp& w, uint64_t address, bool writes, Order order) {
  Knowledge& at = w.block->atomics[address];
  w.gathered.join(at);
  if (order == Order::acquire || order == Order::both) w.knows.join(at);
  if (!writes) return;
  at.join(w.released);
  if (order == Order::release || order == Order::both) {
    at.join(w.knows);
    w.tick();
  }
}

void count_traffic(const Warp& w, const Instruction& i, uint32_t mask, unsigned bytes) {
  std::array<uint64_t, 32> address{};
  for_lanes(mask,
            [&](unsigned l) { address[l] = w.value(i.source[0], l) + static_cast<uint64_t>(i.offset[0]); });
  const bool generic = i.space == Space::generic;
  const uint64_t window = address[static_cast<unsigned>(__builtin_ctz(mask))] & kWindowMask;
  if (i.space == Space::shared || (generic && window == kSharedWindow)) {
    w.block->count_shared(w, address, mask, bytes);
  } else if (i.space == Space::global || (generic && !window)) {
    w.block->count_global(w, address, mask, bytes);
  }
}

namespace {

uint64_t extended(uint64_t bits, Type type) {
  switch (type) {
    case Type::s8:
      return static_cast<uint64_t>(int64_t{static_cast<int8_t>(bits)});
    case Type::s16:
      return static_cast<uint64_t>(int64_t{static_cast<int16_t>(bits)});
    case Type::s32:
      return static_cast<uint64_t>(int64_t{static_cast<int32_t>(bits)});
    default:
      return bits;
  }
}

template <bool Load>
AccessKind kind_of(const Instruction& i) {
  AccessKind kind{.access = Load ? Access::read : Access::write};
  kind.strong = i.flags & kStrong;
  return kind;
}

template <bool Load>
void order_strong(Warp& w, const Instruction& i, unsigned lane, uint64_t address) {
  if (!(i.flags & kStrong) || i.space == Space::parameter || i.space == Space::local) return;
  const Order order = i.flags & kAcquire   ? Order::acquire
                      : i.flags & kRelease ? Order::release
                                           : Order::relaxed;
  const uint64_t key = i.space == Space::shared ? (address | kSharedWindow) : address;
  (void)lane;
  order_atomic(w, key, !Load, order);
}

template <bool Load>
Step access(Warp& w, const Instruction& i, uint32_t mask) {
  const unsigned size = size_of(i.type), count = static_cast<unsigned>(i.values.size());
  const AccessKind kind = kind_of<Load>(i);
  if (w.block->context->options->profile) count_traffic(w, i, mask, size * count);
  for_lanes(mask, [&](unsigned l) {
    uint64_t address = w.value(i.source[0], l);
    if (i.space == Space::shared) address = static_cast<uint32_t>(address);
    address += static_cast<uint64_t>(i.offset[0]);
    order_strong<Load>(w, i, l, address);
    std::byte* at = resolve(w, i, l, address, size * count, kind);
    if constexpr (Load) {
      for (unsigned k = 0; k < count; ++k) {
        uint64_t bits = 0;
        if (at) std::memcpy(&bits, at + k * size, size);
        w.set_value(i.values[k], l, extended(bits, i.type));
      }
    } else if (at) {
      for (unsigned k = 0; k < count; ++k) {
        const uint64_t bits = w.value(i.values[k], l);
        std::memcpy(at + k * size, &bits, size);
      }
    }
  });
  return Step::next;
}

// The common case: 32-bit registers.
template <bool Load>
Step access_words(Warp& w, const Instruction& i, uint32_t mask) {
  const unsigned count = static_cast<unsigned>(i.values.size());
  const AccessKind kind{.access = Load ? Access::read : Access::write};
  if (w.block->context->options->profile) count_traffic(w, i, mask, 4 * count);
  uint32_t* values[4];
  for (unsigned k = 0; k < count; ++k)
    values[k] = const_cast<uint32_t*>(std::as_const(w).lanes<uint32_t>(i.values[k]));
  for_lanes(mask, [&](unsigned l) {
    const uint64_t base =
        i.space == Space::shared ? static_cast<uint32_t>(w.value(i.source[0], l)) : w.value(i.source[0], l);
    std::byte* at = resolve(w, i, l, base + static_cast<uint64_t>(i.offset[0]), 4 * count, kind);
    for (unsigned k = 0; k < count; ++k) {
      if constexpr (Load) {
        uint32_t bits = 0;
        if (at) std::memcpy(&bits, at + 4 * k, 4);
        values[k][l] = bits;
      } else if (at) {
        std::memcpy(at + 4 * k, &values[k][l], 4);
      }
    }
  });
  return Step::next;
}

Step load_parameter(Warp& w, const Instruction& i, uint32_t mask) {
  const unsigned size = size_of(i.type);
  for_lanes(mask, [&](unsigned l) {
    const uint64_t offset = (w.value(i.source[0], l) & ~kWindowMask) + static_cast<uint64_t>(i.offset[0]);
    const std::byte* at =
        parameter_bytes(w, l, offset, size * static_cast<unsigned>(i.values.size()), Access::read);
    for (unsigned k = 0; k < i.values.size(); ++k) {
      uint64_t bits = 0;
      if (at) std::memcpy(&bits, at + k * size, size);
      w.set_value(i.values[k], l, extended(bits, i.type));
    }
  });
  return Step::next;
}

Space take_space(Decoder& d) {
  if (d.has("global") || d.has("const")) return Space::global;
  if (d.has("shared") || d.has("shared::cta")) return Space::shared;
  if (d.has("local")) return Space::local;
  if (d.has("param") || d.has("param::entry")) return Space::parameter;
  return Space::generic;
}

template <bool Load>
void decode_access(Decoder& d, Instruction& i) {
  i.space = take_space(d);
  d.allow({"weak",
           "nc",
           "ca",
           "cg",
           "cs",
           "lu",
           "cv",
           "wb",
           "wt",
           "cta",
           "gpu",
           "sys",
           "cluster",
           "L1::no_allocate",
           "L1::evict_first",
           "L1::evict_last",
           "L1::evict_normal",
           "L1::evict_unchanged",
           "L2::64B",
           "L2::128B",
           "L2::256B"});
  if (d.has("volatile") || d.has("relaxed")) i.flags |= kStrong;
  if (Load && d.has("acquire")) i.flags |= kStrong | kAcquire;
  if (!Load && d.has("release")) i.flags |= kStrong | kRelease;
  const unsigned width = d.has("v2") ? 2 : d.has("v4") ? 4 : 1;
  i.type = d.type();
  if (size_of(i.type) * width > 16) d.fail("more than 16 bytes a lane are not supported");
  if ((i.flags & kStrong) && i.space != Space::shared && i.space != Space::parameter &&
      i.space != Space::local)
    d.kernel().uses_atomics = true;
  i.source[0] = d.address(d.operand(Load ? 1 : 0), i.offset[0], i.space);
  i.values = d.loose_list(d.operand(Load ? 0 : 1), i.type);
  if (i.values.size() != width) d.fail("lists another number of registers than it moves");
  if (Load) i.writes = static_cast<uint8_t>(width);
  bool words = size_of(i.type) == 4 && !i.flags;
  for (const Operand& o : i.values) words = words && !o.wide;
  i.handler = words ? access_words<Load> : access<Load>;
  if (i.space == Space::parameter) i.handler = load_parameter;
}

}  // namespace

void add_load_store(DecodeTable& table) {
  table["ld"] = decode_access<true>;
  table["ldu"] = decode_access<true>;
  table["st"] = decode_access<false>;
  for (const char* hint : {"prefetch", "prefetchu", "discard", "applypriority"}) {
    table[hint] = [](Decoder& d, Instruction& i) {
      d.allow({"global", "L1", "L2", "local", "tensormap", "param", "L2::128B", "L2::evict_normal",
               "L2::evict_last", "const"});
      i.handler = [](Warp&, const Instruction&, uint32_t) { return Step::next; };
    };
  }
}

}  // namespace longreach::ptx
