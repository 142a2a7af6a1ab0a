#include "tests/ptx/interpreter/barrier.h"

#include "core/error.h"
#include "tests/ptx/interpreter/decoder.h"
#include "tests/ptx/interpreter/lanes.h"
#include "tests/ptx/interpreter/load_store.h"

namespace longreach::ptx {
namespace {

enum Flags : uint8_t { kArriveOnly = 1, kReduceCount = 2, kReduceAnd = 4, kReduceOr = 8 };

void release(Block& block, Barrier& barrier, unsigned id) {
  for (const unsigned index : barrier.waiting) {
    Warp& w = block.warps[index];
    w.knows.join(barrier.joined);
    w.synchronize_lanes();
    w.blocked = false;
    const Instruction& i = block.context->kernel->code[w.code];
    const uint32_t result = i.flags & kReduceCount ? barrier.count
                            : i.flags & kReduceAnd ? (barrier.count == barrier.ballots)
                                                   : (barrier.count > 0);
    if (i.flags & kReduceCount) {
      for_lanes(w.live, [&](unsigned l) { w.set_value(i.destination, l, result); });
    } else if (i.flags & (kReduceAnd | kReduceOr)) {
      w.set_predicate(i.destination, w.live, result ? ~0u : 0u);
    }
  }
  block.barriers[id] = {};
}

// source: 0 the barrier's number, 1 the number of threads, 2 the predicate of a reduction.
Step barrier_sync(Warp& w, const Instruction& i, uint32_t mask) {
  Block& block = *w.block;
  const auto first = static_cast<unsigned>(__builtin_ctz(mask));
  const uint64_t id = w.value(i.source[0], first);
  if (id >= block.barriers.size()) {
    block.error(w, first, "barrier number out of range", text(" ", id, " of 16"));
    return Step::next;
  }
  if (w.live != w.existing) block.error(w, first, "barrier after lanes of the warp have exited");
  Barrier& barrier = block.barriers[id];
  const unsigned whole = block.context->warps * 32;
  const auto expected = i.source[1].present ? static_cast<unsigned>(w.value(i.source[1], first)) : whole;
  if (expected % 32 || expected > whole || !expected) {
    block.error(w, first, "barrier for a number of threads that is no multiple of 32 or above the block's",
                text(" ", expected));
    return Step::next;
  }
  if (barrier.arrived && barrier.expected != expected) {
    block.error(
        w, first, "barrier joined with another number of threads",
        text(" ", expected, ", others ", barrier.expected, " at ", location_text(*w.kernel, barrier.code)));
  }
  if (!barrier.arrived) barrier.expected = expected;
  if (i.source[2].present) {
    barrier.count += static_cast<unsigned>(__builtin_popcount(w.predicate(i.source[2]) & mask));
    barrier.ballots += static_cast<unsigned>(__builtin_popcount(mask));
  }
  barrier.arrived += 32;
  barrier.code = w.code;
  barrier.joined.join(w.knows);
  w.synchronize_lanes();
  if (!(i.flags & kArriveOnly)) {
    barrier.waiting.push_back(w.index);
    w.blocked = true;
  }
  if (barrier.arrived >= barrier.expected) release(block, barrier, static_cast<unsigned>(id));
  return w.blocked ? Step::yield : Step::next;
}

Step warp_sync(Warp& w, const Instruction&, uint32_t) {
  w.synchronize_lanes();
  return Step::next;
}

void decode_bar(Decoder& d, Instruction& i) {
  d.allow({"cta", "aligned"});
  if (d.has("warp")) {
    if (!d.has("sync")) d.fail("lacks .sync");
    i.handler = warp_sync;
    i.together = Together::members;
    i.source[0] = d.source(0, Type::b32);
    return;
  }
  i.handler = barrier_sync;
  i.together = Together::warp;
  size_t next = 0;
  if (d.has("red")) {
    i.flags = d.has("popc") ? kReduceCount : d.has("and") ? kReduceAnd : d.has("or") ? kReduceOr : 0;
    if (!i.flags) d.fail("names no known reduction");
    const Type t = d.type();
    i.destination = d.destination(next++, t);
  } else if (d.has("arrive")) {
    i.flags = kArriveOnly;
  } else if (!d.has("sync")) {
    d.fail("neither waits nor arrives");
  }
  i.source[0] = d.source(next++, Type::b32);
  const bool reduces = i.flags & ~kArriveOnly;
  if (d.operands() > next + (reduces ? 1 : 0)) i.source[1] = d.source(next++, Type::b32);
  if (reduces) i.source[2] = d.predicate(d.operand(next));
}

Step fence(Warp& w, const Instruction& i, uint32_t) {
  if (i.flags) {
    w.knows.fenced.join(w.knows.seen);
    w.tick();
  } else {
    order_fence(w);
  }
  return Step::next;
}

void decode_fence(Decoder& d, Instruction& i) {
  i.handler = fence;
  i.flags = d.has("proxy");
  const bool initialised = d.has("mbarrier_init");
  if (i.flags && !d.has("async") && !d.has("async::generic"))
    d.fail("proxies other than .async are not supported");
  i.flags = i.flags || initialised;
  d.allow({"acq_rel", "sc", "acquire", "release", "cta", "gpu", "gl", "sys", "cluster", "global",
           "shared::cta", "shared::cluster", "sync_restrict::shared::cta"});
}

}  // namespace

void advance_mbarrier(Block& block, MBarrier& barrier, unsigned arrivals, int64_t bytes) {
  barrier.pending -= arrivals;
  barrier.bytes += bytes;
  if (barrier.pending || barrier.bytes) return;
  ++barrier.phase;
  barrier.pending = barrier.expected;
  barrier.joined.seen.time[barrier.agent] = barrier.phase;
  barrier.completed = barrier.joined;
  for (Warp& w : block.warps) {
    if (w.blocked && w.kernel->code[w.code].flags & 128) w.blocked = false;
  }
}

MBarrier* find_mbarrier(Warp& w, unsigned lane, uint32_t address) {
  const auto found = w.block->mbarriers.find(address);
  if (found != w.block->mbarriers.end()) return &found->second;
  w.block->error(w, lane, "no mbarrier was initialised here", text(" shared ", address));
  return nullptr;
}

std::string waiting_text(const Warp& w) {
  std::string what = text("warp ", w.index, " waits at ", location_text(*w.kernel, w.code));
  if (w.wanted_registers != 0)
    what += text(" for ", w.wanted_registers, " registers a thread: it has ", w.held_registers, ", and ",
                 w.block->free_registers, " of the block's are free");
  const Instruction& i = w.kernel->code[w.code];
  if (i.flags & 128) {
    const auto address =
        static_cast<uint32_t>(w.value(i.source[0], static_cast<unsigned>(__builtin_ctz(w.live))) +
                              static_cast<uint64_t>(i.offset[0]));
    const auto found = w.block->mbarriers.find(address);
    if (found != w.block->mbarriers.end()) {
      what += text(" for mbarrier ", address, ": ", found->second.pending, " arrivals and ",
                   found->second.bytes, " bytes to come");
    }
  }
  return what;
}

void add_barriers(DecodeTable& table) {
  table["bar"] = decode_bar;
  table["barrier"] = decode_bar;
  table["fence"] = decode_fence;
  table["membar"] = decode_fence;
}

}  // namespace longreach::ptx
