// mbarrier: init, arrive, expect_tx, test_wait and try_wait. A wait that succeeds tells the warp everything
// that the arrivals and the copies of the phase knew; a try_wait that fails puts the warp to sleep.
#include "core/error.h"
#include "tests/ptx/interpreter/barrier.h"
#include "tests/ptx/interpreter/decoder.h"
#include "tests/ptx/interpreter/lanes.h"

namespace longreach::ptx {
namespace {

enum Flags : uint8_t { kExpect = 1, kBlocking = 128, kDrop = 2, kNoComplete = 4 };

uint32_t address_of(const Warp& w, const Instruction& i, unsigned lane) {
  return static_cast<uint32_t>(w.value(i.source[0], lane) + static_cast<uint64_t>(i.offset[0]));
}

Step initialise(Warp& w, const Instruction& i, uint32_t mask) {
  Block& block = *w.block;
  for_lanes(mask, [&](unsigned l) {
    const uint32_t address = address_of(w, i, l);
    if (!block.shared_access(w, l, address, 8, {.access = Access::write, .strong = true})) return;
    const auto count = static_cast<unsigned>(w.value(i.source[1], l));
    if (!count || count >= 1u << 20) block.error(w, l, "mbarrier for a count out of range", text(" ", count));
    unsigned agent = block.agents;
    const auto known = block.mbarriers.find(address);
    if (known != block.mbarriers.end()) {
      block.error(w, l, "mbarrier initialised again", text(" shared ", address));
      agent = known->second.agent;
    } else {
      check<UserError>(agent < kAgents, w.kernel->name, ": more than ", kAgents - kWarps,
                       " mbarriers are not supported");
      ++block.agents;
    }
    block.mbarriers[address] = {
        .expected = count, .pending = count, .agent = agent, .maker = w.index, .made = w.time()};
  });
  return Step::next;
}

Step invalidate(Warp& w, const Instruction& i, uint32_t mask) {
  for_lanes(mask, [&](unsigned l) {
    if (find_mbarrier(w, l, address_of(w, i, l))) w.block->mbarriers.erase(address_of(w, i, l));
  });
  return Step::next;
}

// Threads that use an mbarrier must know that it has been initialised.
bool made_before(const Warp& w, const MBarrier& b) {
  return w.index == b.maker || b.made <= w.knows.seen.time[b.maker];
}

Step arrive(Warp& w, const Instruction& i, uint32_t mask) {
  for_lanes(mask, [&](unsigned l) {
    const uint32_t address = address_of(w, i, l);
    MBarrier* b = find_mbarrier(w, l, address);
    if (!b) return;
    if (!made_before(w, *b))
      w.block->error(w, l, "race: mbarrier used by a warp that does not know it is initialised");
    const int64_t bytes = i.flags & kExpect ? static_cast<int64_t>(w.value(i.source[1], l) & 0xffffffff) : 0;
    const unsigned count =
        !(i.flags & kExpect) && i.source[1].present ? static_cast<unsigned>(w.value(i.source[1], l)) : 1;
    if (count > b->pending) {
      w.block->error(w, l, "mbarrier gets more arrivals than it expects", text(" shared ", address));
      return;
    }
    w.set_value(i.destination, l, b->phase);
    b->joined.join(w.knows);
    if (i.flags & kDrop) --b->expected;
    advance_mbarrier(*w.block, *b, count, bytes);
  });
  w.tick();
  return Step::next;
}

Step expect(Warp& w, const Instruction& i, uint32_t mask) {
  for_lanes(mask, [&](unsigned l) {
    MBarrier* b = find_mbarrier(w, l, address_of(w, i, l));
    if (b) b->bytes += static_cast<int64_t>(w.value(i.source[1], l) & 0xffffffff);
  });
  return Step::next;
}

// offset[1]: whether source 1 is a parity or the state of an earlier arrival.
Step wait(Warp& w, const Instruction& i, uint32_t mask) {
  uint32_t done = 0;
  for_lanes(mask, [&](unsigned l) {
    MBarrier* b = find_mbarrier(w, l, address_of(w, i, l));
    if (!b) {
      done |= 1u << l;  // the error is reported; go on
      return;
    }
    if (!made_before(w, *b))
      w.block->error(w, l, "race: mbarrier used by a warp that does not know it is initialised");
    const uint64_t asked = w.value(i.source[1], l);
    const bool over = i.offset[1] ? (b->phase & 1) != (asked & 1) : b->phase > asked;
    if (!over) return;
    done |= 1u << l;
    w.knows.join(b->completed);
  });
  const bool sleeps = done != mask && i.flags & kBlocking;
  if (sleeps) {
    w.blocked = true;
    return Step::retry;
  }
  w.synchronize_lanes();
  w.set_predicate(i.destination, mask, done);
  return done == mask ? Step::next : Step::yield;
}

}  // namespace

void decode_mbarrier(Decoder& d, Instruction& i) {
  i.space = Space::shared;
  const bool arrives = d.has("arrive") || d.has("arrive_drop");
  const std::string name = d.opcode();
  d.allow({"shared", "shared::cta", "b64", "release", "acquire", "relaxed", "cta", "cluster"});
  size_t address = 0;
  if (d.has("init")) {
    i.handler = initialise;
    i.source[1] = d.source(1, Type::u32);
  } else if (d.has("inval")) {
    i.handler = invalidate;
  } else if (d.has("test_wait") || d.has("try_wait")) {
    const bool blocking = name.find("try_wait") != std::string::npos;
    i.handler = wait;
    i.flags = blocking ? kBlocking : 0;
    i.offset[1] = d.has("parity");
    i.destination = d.destination(0, Type::pred);
    address = 1;
    i.source[1] = i.offset[1] ? d.source(2, Type::u32) : d.source(2, Type::b64);
  } else if (arrives) {
    i.handler = arrive;
    if (d.has("expect_tx")) i.flags |= kExpect;
    if (name.find("arrive_drop") != std::string::npos) i.flags |= kDrop;
    address = d.operand(0).starts_with('[') ? 0 : 1;
    if (address) i.destination = d.destination(0, Type::b64);
    if (d.operands() > address + 1) i.source[1] = d.source(address + 1, Type::u32);
  } else if (d.has("expect_tx")) {
    i.handler = expect;
    i.source[1] = d.source(1, Type::u32);
  } else {
    d.fail("is not supported");
  }
  int64_t offset = 0;
  i.source[0] = d.address(d.operand(address), offset, Space::shared);
  i.offset[0] = offset;
}

}  // namespace longreach::ptx
