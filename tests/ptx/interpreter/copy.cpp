// cp.async: copies of one lane from global to shared memory, in flight until the lane waits for their group.
#include <algorithm>

#include "core/error.h"
#include "tests/ptx/interpreter/barrier.h"
#include "tests/ptx/interpreter/decoder.h"
#include "tests/ptx/interpreter/lanes.h"
#include "tests/ptx/interpreter/load_store.h"

namespace longreach::ptx {
namespace {

// source: 0 where to, 1 where from, 2 bytes to read (the rest are zeros). offset: of both addresses, and the
// bytes to write. The bytes are there at once, but whoever touches them before the wait is reported.
Step copy(Warp& w, const Instruction& i, uint32_t mask) {
  Block& block = *w.block;
  const auto bytes = static_cast<unsigned>(i.offset[2]);
  Copy done{.lanes = 0, .bytes = static_cast<uint8_t>(bytes)};
  std::array<uint64_t, 32> from{}, to{};
  uint32_t reading = 0;
  for_lanes(mask, [&](unsigned l) {
    to[l] = static_cast<uint32_t>(w.value(i.source[0], l)) + static_cast<uint64_t>(i.offset[0]);
    from[l] = w.value(i.source[1], l) + static_cast<uint64_t>(i.offset[1]);
    const uint64_t wanted = i.source[2].present ? w.value(i.source[2], l) & 0xffffffff : bytes;
    if (wanted > bytes)
      block.error(w, l, "cp.async reads more than it writes", text(" ", wanted, " of ", bytes));
    const unsigned take = static_cast<unsigned>(std::min<uint64_t>(wanted, bytes));
    std::byte* target = block.shared_access(w, l, static_cast<uint32_t>(to[l]), bytes,
                                            {.access = Access::write, .lasting = true});
    if (take && from[l] % bytes) {
      block.error(w, l, "misaligned source of cp.async");
      return;
    }
    if (target) std::memset(target, 0, bytes);
    // A partial read is checked piece by piece, each a power of two.
    for (unsigned at = 0; at < take;) {
      unsigned piece = bytes;
      while (at + piece > take || at % piece) piece /= 2;
      const std::byte* source = block.global_access(w, l, from[l] + at, piece, {});
      if (source && target) std::memcpy(target + at, source, piece);
      at += piece;
    }
    if (take) reading |= 1u << l;
    if (!target) return;
    done.lanes |= 1u << l;
    done.address[l] = static_cast<uint32_t>(to[l]);
  });
  if (block.context->options->profile) {
    block.count_shared(w, to, mask, bytes);
    if (reading) block.count_global(w, from, reading, bytes);
  }
  if (done.lanes) w.open_copies.push_back(done);
  return Step::next;
}

Step commit(Warp& w, const Instruction&, uint32_t mask) {
  CopyGroup group{.lanes = mask};
  for (Copy& open : w.open_copies) {
    Copy mine = open;
    mine.lanes &= mask;
    open.lanes &= ~mask;
    if (mine.lanes) group.copies.push_back(mine);
  }
  std::erase_if(w.open_copies, [](const Copy& c) { return !c.lanes; });
  w.copy_groups.push_back(std::move(group));
  return Step::next;
}

void land(Warp& w, std::vector<Copy>& copies, uint32_t lanes) {
  for (Copy& c : copies) {
    for_lanes(c.lanes & lanes, [&](unsigned l) { w.block->land_copy(w, l, c.address[l], c.bytes); });
    c.lanes &= ~lanes;
  }
  std::erase_if(copies, [](const Copy& c) { return !c.lanes; });
}

// Each lane waits until at most offset[0] of its own groups are in flight.
Step wait(Warp& w, const Instruction& i, uint32_t mask) {
  std::array<unsigned, 32> newer{};
  for (auto group = w.copy_groups.rbegin(); group != w.copy_groups.rend(); ++group) {
    uint32_t done = 0;
    for_lanes(mask & group->lanes, [&](unsigned l) { done |= uint32_t{newer[l]++ >= i.offset[0]} << l; });
    land(w, group->copies, done);
    group->lanes &= ~done;
  }
  std::erase_if(w.copy_groups, [](const CopyGroup& g) { return !g.lanes; });
  if (i.flags) land(w, w.open_copies, mask);
  return Step::next;
}

// Arrives on an mbarrier when this lane's copies so far are done: they then belong to the mbarrier's phase.
Step arrive_on(Warp& w, const Instruction& i, uint32_t mask) {
  for_lanes(mask, [&](unsigned l) {
    MBarrier* barrier = find_mbarrier(
        w, l, static_cast<uint32_t>(w.value(i.source[0], l) + static_cast<uint64_t>(i.offset[0])));
    if (!barrier) return;
    const auto hand_over = [&](std::vector<Copy>& copies) {
      for (Copy& c : copies) {
        if (!(c.lanes >> l & 1)) continue;
        w.block->land_copy_on(barrier->agent, barrier->phase + 1, c.address[l], c.bytes);
        c.lanes &= ~(1u << l);
      }
    };
    hand_over(w.open_copies);
    for (CopyGroup& group : w.copy_groups) hand_over(group.copies);
    barrier->joined.join(w.knows);
    // Without .noinc the arrival is one more than the barrier was told to expect.
    if (!i.flags) ++barrier->pending;
    advance_mbarrier(*w.block, *barrier, 1, 0);
  });
  std::erase_if(w.open_copies, [](const Copy& c) { return !c.lanes; });
  w.tick();
  return Step::next;
}

}  // namespace

void decode_bulk(Decoder& d, Instruction& i);

void decode_cp(Decoder& d, Instruction& i) {
  if (!d.has("async")) d.fail("is not supported");
  if (d.has("bulk")) return decode_bulk(d, i);
  if (d.has("commit_group")) {
    i.handler = commit;
  } else if (d.has("wait_group")) {
    i.handler = wait;
    i.offset[0] = d.immediate(0);
  } else if (d.has("wait_all")) {
    i.handler = wait;
    i.flags = 1;
  } else if (d.has("mbarrier")) {
    d.allow({"arrive", "shared", "shared::cta", "b64"});
    i.flags = d.has("noinc");
    i.handler = arrive_on;
    i.source[0] = d.address(d.operand(0), i.offset[0], Space::shared);
  } else {
    if (!d.has("shared") && !d.has("shared::cta")) d.fail("copies elsewhere than to shared memory");
    d.allow({"ca", "cg", "global", "L2::64B", "L2::128B", "L2::256B"});
    i.handler = copy;
    i.source[0] = d.address(d.operand(0), i.offset[0], Space::shared);
    i.source[1] = d.address(d.operand(1), i.offset[1], Space::global);
    i.offset[2] = d.immediate(2);
    if (d.operands() > 3) i.source[2] = d.source(3, Type::u32);
  }
}

}  // namespace longreach::ptx
