// Control flow: branches and exits, and instructions that only tune the hardware.
#include "tests/ptx/interpreter/decoder.h"
#include "tests/ptx/interpreter/lanes.h"

namespace longreach::ptx {
namespace {

Step branch_indexed(Warp& w, const Instruction& i, uint32_t mask) {
  for_lanes(mask, [&](unsigned l) {
    const uint64_t index = w.value(i.source[0], l);
    if (index < i.targets.size()) {
      w.places[l] = i.targets[index];
    } else {
      w.block->error(w, l, "brx.idx beyond its targets");
    }
  });
  return Step::moved;
}

Step exit_lanes(Warp& w, const Instruction&, uint32_t mask) {
  finish_warp_checks(w, mask);
  w.live &= ~mask;
  w.parked &= ~mask;
  return Step::moved;
}

Step trap(Warp& w, const Instruction& i, uint32_t mask) {
  w.block->error(w, static_cast<unsigned>(__builtin_ctz(mask)), "trap");
  return exit_lanes(w, i, mask);
}

Step nothing(Warp&, const Instruction&, uint32_t) { return Step::next; }

void decode_exit(Decoder& d, Instruction& i) {
  d.has("uni");
  i.branch = true;
  i.handler = exit_lanes;
}

}  // namespace

void add_control(DecodeTable& table) {
  table["bra"] = [](Decoder& d, Instruction& i) {
    d.has("uni");
    i.branch = true;
    d.label(d.operand(0));
  };
  table["brx"] = [](Decoder& d, Instruction& i) {
    d.allow({"idx", "uni"});
    i.branch = true;
    i.handler = branch_indexed;
    i.source[0] = d.source(0, Type::u32);
    d.label(d.operand(1));
  };
  table["ret"] = decode_exit;
  table["exit"] = decode_exit;
  table["trap"] = [](Decoder&, Instruction& i) {
    i.branch = true;
    i.handler = trap;
  };
  // Sleeps and launch dependences change no result.
  table["nanosleep"] = [](Decoder& d, Instruction& i) {
    d.has("u32");
    i.handler = nothing;
  };
  table["griddepcontrol"] = [](Decoder& d, Instruction& i) {
    d.allow({"wait", "launch_dependents"});
    i.handler = nothing;
  };
}

}  // namespace longreach::ptx
