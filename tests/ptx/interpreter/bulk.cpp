// Bulk copies: TMA and plain ones. Loads arrive on behalf of the mbarrier they complete on, so that only
// warps that have waited for its phase may touch the bytes; stores read shared memory until their group has
// been waited for.
#include <algorithm>

#include "core/error.h"
#include "tests/ptx/interpreter/barrier.h"
#include "tests/ptx/interpreter/decoder.h"
#include "tests/ptx/interpreter/lanes.h"
#include "tests/ptx/interpreter/load_store.h"

namespace longreach::ptx {
namespace {

enum Flags : uint8_t { kStore = 1, kTensor = 2 };

// Bits 4-6 of an address (as many as the swizzle has) take in bits 7-9.
uint32_t swizzled(uint32_t address, uint32_t swizzle_bytes) {
  const uint32_t mask = swizzle_bytes ? swizzle_bytes / 16 - 1 : 0;
  return address ^ (address >> 7 & mask) << 4;
}

const cuda::TensorMap* find_map(Warp& w, unsigned lane, uint64_t address) {
  if ((address & kWindowMask) == kParameterWindow) {
    for (const cuda::TensorMapArgument& a : w.block->context->launch->tensor_maps) {
      if (a.offset == (address & ~kWindowMask)) return &a.map;
    }
  }
  w.block->error(w, lane, "the address of a tensor map is none of the launch's");
  return nullptr;
}

// One copy between a box of a tensor and shared memory.
struct BoxCopy {
  Warp& w;
  unsigned lane;
  const cuda::TensorMap& map;
  uint32_t shared;
  std::array<int64_t, 5> origin{};
  AccessKind shared_kind;
  bool store;

  uint32_t row_bytes() const { return map.box[0] * map.element_bytes; }
  uint32_t bytes() const {
    uint32_t all = map.element_bytes;
    for (uint32_t k = 0; k < map.rank; ++k) all *= map.box[k];
    return all;
  }

  bool aligned() const {
    const uint32_t needed = map.swizzle_bytes ? map.swizzle_bytes * 8 : 128;
    if (shared % needed == 0) return true;
    w.block->error(w, lane, "shared memory of a TMA copy is misaligned",
                   text(" ", shared, " for ", needed, " bytes"));
    return false;
  }

  void run() {
    if (!aligned()) return;
    const uint32_t rows = bytes() / row_bytes();
    for (uint32_t row = 0; row < rows; ++row) {
      uint64_t address = reinterpret_cast<uint64_t>(map.data);
      bool inside = true;
      uint32_t rest = row;
      for (uint32_t k = 1; k < map.rank; ++k) {
        const int64_t at = origin[k] + rest % map.box[k];
        rest /= map.box[k];
        inside = inside && at >= 0 && at < static_cast<int64_t>(map.size[k]);
        address += static_cast<uint64_t>(at) * map.stride[k - 1];
      }
      for (uint32_t c = 0; c < row_bytes(); c += 16)
        copy_chunk(shared + row * row_bytes() + c, address, c / map.element_bytes, inside);
    }
  }

  // 16 bytes from element `first` of the row on; elements outside of the tensor read as zeros and are not
  // written.
  void copy_chunk(uint32_t plain, uint64_t row, uint32_t first, bool inside) {
    Block& block = *w.block;
    std::byte* here = block.shared_access(w, lane, swizzled(plain, map.swizzle_bytes), 16, shared_kind);
    if (!here) return;
    const uint32_t size = map.element_bytes, count = 16 / size;
    const int64_t begin = origin[0] + first;
    if (!store) std::memset(here, 0, 16);
    const int64_t end = std::min<int64_t>(begin + count, static_cast<int64_t>(map.size[0]));
    if (!inside || end <= begin || end <= 0) return;
    const AccessKind global_kind{.access = store ? Access::write : Access::read, .async = true};
    const uint64_t address = row + static_cast<uint64_t>(begin) * size;
    const bool whole = begin >= 0 && end == begin + count && address % 16 == 0;
    const uint32_t step = whole ? 16 : size;
    for (uint32_t at = 0; at < 16; at += step) {
      const int64_t element = begin + at / size;
      if (element < 0 || element >= end) continue;
      std::byte* there = block.global_access(w, lane, address + at, step, global_kind);
      if (there) std::memcpy(store ? there : here + at, store ? here + at : there, step);
    }
  }
};

// The mbarrier a load completes on; the asynchronous proxy must know that it has been initialised.
MBarrier* completion(Warp& w, unsigned lane, uint32_t address) {
  MBarrier* b = find_mbarrier(w, lane, address);
  if (b && b->made > w.knows.fenced.time[b->maker]) {
    w.block->error(w, lane, "missing fence between mbarrier.init and a bulk copy that completes on it");
  }
  return b;
}

// source: 0 shared memory, 1 the map, 2 the mbarrier; values: coordinates.
Step copy_tensor(Warp& w, const Instruction& i, uint32_t mask) {
  for_lanes(mask, [&](unsigned l) {
    const cuda::TensorMap* map = find_map(w, l, w.value(i.source[1], l) + static_cast<uint64_t>(i.offset[1]));
    if (!map) return;
    if (map->rank != i.values.size()) {
      w.block->error(w, l, "a TMA copy has another rank than its map",
                     text(" ", i.values.size(), ", map ", map->rank));
      return;
    }
    const bool store = i.flags & kStore;
    const auto shared = static_cast<uint32_t>(w.value(i.source[0], l) + static_cast<uint64_t>(i.offset[0]));
    BoxCopy box{
        .w = w, .lane = l, .map = *map, .shared = shared, .origin = {}, .shared_kind = {}, .store = store};
    for (size_t k = 0; k < i.values.size(); ++k)
      box.origin[k] = static_cast<int32_t>(w.value(i.values[k], l));
    if (store) {
      box.shared_kind = {.access = Access::read, .async = true, .lasting = true};
      box.run();
      w.open_stores[l].push_back({shared, box.bytes()});
      return;
    }
    MBarrier* b =
        completion(w, l, static_cast<uint32_t>(w.value(i.source[2], l) + static_cast<uint64_t>(i.offset[2])));
    if (!b) return;
    box.shared_kind = {.access = Access::write, .async = true, .agent = b->agent, .time = b->phase + 1};
    box.run();
    advance_mbarrier(*w.block, *b, 0, -int64_t{box.bytes()});
  });
  return Step::next;
}

// source: 0 shared memory, 1 global memory, 2 the mbarrier, 3 bytes.
Step copy_plain(Warp& w, const Instruction& i, uint32_t mask) {
  Block& block = *w.block;
  for_lanes(mask, [&](unsigned l) {
    const bool store = i.flags & kStore;
    const auto shared = static_cast<uint32_t>(w.value(i.source[0], l) + static_cast<uint64_t>(i.offset[0]));
    const uint64_t global = w.value(i.source[1], l) + static_cast<uint64_t>(i.offset[1]);
    const auto bytes = static_cast<uint32_t>(w.value(i.source[3], l));
    if (bytes % 16 || shared % 16 || global % 16) {
      block.error(w, l, "a bulk copy is misaligned", text(": ", bytes, " bytes, shared ", shared));
      return;
    }
    AccessKind kind{.access = Access::read, .async = true, .lasting = true};
    MBarrier* b = nullptr;
    if (!store) {
      b = completion(w, l,
                     static_cast<uint32_t>(w.value(i.source[2], l) + static_cast<uint64_t>(i.offset[2])));
      if (!b) return;
      kind = {.access = Access::write, .async = true, .agent = b->agent, .time = b->phase + 1};
    }
    for (uint32_t at = 0; at < bytes; at += 16) {
      std::byte* here = block.shared_access(w, l, shared + at, 16, kind);
      std::byte* there = block.global_access(w, l, global + at, 16,
                                             {.access = store ? Access::write : Access::read, .async = true});
      if (here && there) std::memcpy(store ? there : here, store ? here : there, 16);
    }
    if (store) {
      w.open_stores[l].push_back({shared, bytes});
    } else {
      advance_mbarrier(block, *b, 0, -int64_t{bytes});
    }
  });
  return Step::next;
}

Step commit_stores(Warp& w, const Instruction&, uint32_t mask) {
  for_lanes(mask, [&](unsigned l) {
    w.store_groups[l].push_back({std::move(w.open_stores[l]), l});
    w.open_stores[l].clear();
  });
  return Step::next;
}

// Reads of finished groups end now; those of other groups of the warp go on.
Step wait_stores(Warp& w, const Instruction& i, uint32_t mask) {
  for_lanes(mask, [&](unsigned l) {
    auto& groups = w.store_groups[l];
    while (static_cast<int64_t>(groups.size()) > i.offset[0]) {
      for (const SharedRange& r : groups.front().ranges) w.block->set_reads(w, r, w.time() << 6 | l);
      groups.pop_front();
    }
  });
  for (const auto& groups : w.store_groups) {
    for (const ReadGroup& g : groups) {
      for (const SharedRange& r : g.ranges) w.block->set_reads(w, r, kReading);
    }
  }
  return Step::next;
}

// "[map, {x, y}]"
void take_map(Decoder& d, Instruction& i, std::string_view text) {
  const std::vector<std::string> parts = split_outside(trimmed(text.substr(1, text.size() - 2)), ',');
  if (parts.size() != 2) d.fail("a tensor map needs its coordinates");
  i.source[1] = d.address("[" + parts[0] + "]", i.offset[1], Space::generic);
  i.values = d.list(parts[1], Type::s32);
}

}  // namespace

void decode_bulk(Decoder& d, Instruction& i) {
  i.space = Space::shared;
  if (d.has("commit_group")) {
    i.handler = commit_stores;
    return;
  }
  if (d.has("wait_group")) {
    d.has("read");
    i.handler = wait_stores;
    i.offset[0] = d.immediate(0);
    return;
  }
  const bool tensor = d.has("tensor");
  if (tensor && !(d.has("1d") || d.has("2d") || d.has("3d") || d.has("4d") || d.has("5d")))
    d.fail("lacks a rank");
  d.has("tile");
  if (d.has("prefetch")) {
    d.allow({"L2", "global"});
    i.handler = [](Warp&, const Instruction&, uint32_t) { return Step::next; };
    return;
  }
  const bool load = d.has("mbarrier::complete_tx::bytes");
  if (!load && !d.has("bulk_group")) d.fail("names no way of completion");
  d.allow({"global", "L2::cache_hint"});
  if (!d.has("shared::cluster")) d.has("shared::cta");
  i.flags = static_cast<uint8_t>((load ? 0 : kStore) | (tensor ? kTensor : 0));
  i.handler = tensor ? copy_tensor : copy_plain;
  const std::string_view shared = d.operand(load ? 0 : 1), global = d.operand(load ? 1 : 0);
  i.source[0] = d.address(shared, i.offset[0], Space::shared);
  if (tensor) {
    take_map(d, i, global);
  } else {
    i.source[1] = d.address(global, i.offset[1], Space::global);
    i.source[3] = d.source(2, Type::u32);
  }
  if (load) i.source[2] = d.address(d.operand(tensor ? 2 : 3), i.offset[2], Space::shared);
}

}  // namespace longreach::ptx
