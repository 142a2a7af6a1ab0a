// setmaxnreg: warpgroups of a block give registers back and take them (PTX ISA, "setmaxnreg"). A block begins
// with what ptxas reserves for a kernel that uses it: as many a thread as the multiprocessor's 64 K allow for
// the block's threads alone, in steps of 8. No warp can take what the others have not given back: it waits,
// for ever perhaps, as a device's would.
#include <algorithm>

#include "core/error.h"
#include "tests/ptx/interpreter/decoder.h"
#include "tests/ptx/interpreter/machine.h"

namespace longreach::ptx {
namespace {

constexpr uint32_t kMultiprocessorRegisters = 65536, kMostRegisters = 256, kFewestRegisters = 24, kStep = 8;
constexpr uint8_t kRaises = 1;

// Takes registers up to `wanted` a thread, if the block has them.
bool take(Warp& w, uint32_t wanted) {
  const uint32_t more = 32 * (wanted - w.held_registers);
  if (more > w.block->free_registers) return false;
  w.block->free_registers -= more;
  w.held_registers = wanted;
  return true;
}

void wake_waiting(Block& block) {
  for (Warp& w : block.warps)
    if (w.wanted_registers != 0 && take(w, w.wanted_registers)) {
      w.wanted_registers = 0;
      w.blocked = false;
    }
}

Step change_registers(Warp& w, const Instruction& i, uint32_t) {
  const auto count = static_cast<uint32_t>(i.offset[0]);
  const bool raises = i.flags & kRaises;
  w.register_changes.push_back(count);
  if (raises ? count < w.held_registers : count > w.held_registers) {
    w.block->error(w, 0, raises ? "setmaxnreg.inc to fewer registers" : "setmaxnreg.dec to more registers",
                   text(": ", count, " of ", w.held_registers));
    return Step::next;
  }
  if (!raises) {
    w.block->free_registers += 32 * (w.held_registers - count);
    w.held_registers = count;
    wake_waiting(*w.block);
    return Step::next;
  }
  if (take(w, count)) return Step::next;
  w.wanted_registers = count;
  w.blocked = true;
  return Step::yield;
}

void decode_setmaxnreg(Decoder& d, Instruction& i) {
  if (d.has("inc")) i.flags = kRaises;
  d.allow({"dec", "sync", "aligned", "u32"});
  i.offset[0] = d.immediate(0);
  if (i.offset[0] < kFewestRegisters || i.offset[0] > kMostRegisters || i.offset[0] % kStep != 0)
    d.fail("a number of registers that is no multiple of 8 from 24 to 256");
  i.handler = change_registers;
  i.together = Together::warp;
}

}  // namespace

void prepare_registers(Block& block) {
  const uint32_t threads = 32 * block.context->warps;
  const uint32_t each = std::min(kMultiprocessorRegisters / threads / kStep * kStep, kMostRegisters);
  for (Warp& w : block.warps) w.held_registers = each;
  block.free_registers = 0;
}

void check_register_changes(Block& block) {
  for (size_t first = 0; first < block.warps.size(); first += 4)
    for (size_t w = first + 1; w < std::min(first + 4, block.warps.size()); ++w)
      if (block.warps[w].register_changes != block.warps[first].register_changes) {
        block.error(block.warps[w], 0, "setmaxnreg was not executed alike by the warps of a warpgroup");
        break;
      }
}

void add_register_pool(DecodeTable& table) { table["setmaxnreg"] = decode_setmaxnreg; }

}  // namespace longreach::ptx
