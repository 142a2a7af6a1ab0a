// Runs blocks: warps in turn, each until it waits; lanes that part follow the lowest place in the program
// first and meet again there, and collective instructions hold lanes back until all they name have come.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <numeric>
#include <thread>

#include "core/error.h"
#include "tests/ptx/interpreter/barrier.h"
#include "tests/ptx/interpreter/lanes.h"

namespace longreach::ptx {
namespace {

constexpr uint32_t kEnd = ~0u;
constexpr uint64_t kSlice = 20000;  // instructions until another warp has its turn

struct Group {
  uint32_t lanes = 0, pc = 0, limit = kEnd;
};

void settle(Warp& w, const Group& g, uint32_t pc) {
  if (!w.diverged) {
    w.pc = pc;
    return;
  }
  for_lanes(g.lanes, [&](unsigned l) { w.places[l] = pc; });
}

void spread(Warp& w, const Group& g, uint32_t pc) {
  w.diverged = true;
  for_lanes(g.lanes, [&](unsigned l) { w.places[l] = pc; });
}

void report_stuck(Warp& w) {
  std::map<uint32_t, uint32_t> by_place;
  for_lanes(w.live, [&](unsigned l) { by_place[w.places[l]] |= 1u << l; });
  std::string all;
  for (const auto& [place, lanes] : by_place) {
    all += text(all.empty() ? " lanes 0x" : "; lanes 0x", std::hex, lanes, std::dec, " at ",
                location_text(*w.kernel, place));
  }
  w.code = by_place.begin()->first;
  w.block->error(w, static_cast<unsigned>(__builtin_ctz(w.live)),
                 "lanes that must execute an instruction together have parted", all);
}

Group choose(Warp& w) {
  if (!w.diverged) return {w.live, w.pc, kEnd};
  uint32_t ready = w.live & ~w.parked;
  if (!ready) {
    report_stuck(w);
    w.parked = 0;
    w.forced = true;
    ready = w.live;
  }
  Group g{0, kEnd, kEnd};
  for_lanes(ready, [&](unsigned l) { g.pc = std::min(g.pc, w.places[l]); });
  for_lanes(w.live, [&](unsigned l) {
    if (w.places[l] == g.pc) {
      g.lanes |= 1u << l;
    } else if (w.places[l] > g.pc) {
      g.limit = std::min(g.limit, w.places[l]);
    }
  });
  w.parked &= ~g.lanes;
  if (g.lanes == w.live) {
    w.diverged = false;
    w.pc = g.pc;
  }
  return g;
}

// Whether all lanes that a collective instruction names are here; those who are wait otherwise.
bool together(Warp& w, const Instruction& i, const Group& g, uint32_t active) {
  uint32_t named = w.live;
  if (i.together == Together::members) {
    const auto first = static_cast<unsigned>(__builtin_ctz(active));
    const auto members = static_cast<uint32_t>(w.value(i.source[i.member], first));
    w.code = g.pc;
    if (active & ~members) w.block->error(w, first, "executed by lanes outside of its member mask");
    if (members & w.existing & ~w.live) w.block->error(w, first, "names lanes that have exited");
    named = members & w.live;
  }
  if (!(named & ~active) || w.forced) {
    w.forced = false;
    return true;
  }
  const uint32_t others = g.lanes & ~active;
  spread(w, g, g.pc);
  for_lanes(others, [&](unsigned l) { w.places[l] = g.pc + 1; });
  w.parked |= active;
  return false;
}

// Returns when the warp waits, has ended, or has used up its instructions.
class WarpRun {
 public:
  WarpRun(Warp& w, uint64_t slice) : w_(w), left_(slice) {}

  void run() {
    while (w_.live && !w_.blocked && left_ && !yielded_) {
      Group g = choose(w_);
      run_group(g);
    }
    if (!w_.live) w_.finished = true;
  }
  uint64_t left() const { return left_; }

 private:
  void run_group(Group& g) {
    const Instruction* code = w_.kernel->code.data();
    uint64_t* executed = w_.block->executed.data();
    while (left_) {
      if (g.pc >= g.limit) return settle(w_, g, g.pc);
      const Instruction& i = code[g.pc];
      uint32_t active = g.lanes;
      if (i.guard >= 0) active &= w_.predicates[static_cast<size_t>(i.guard)] ^ (i.guard_negated ? ~0u : 0u);
      if (!active) {
        ++g.pc;
        continue;
      }
      if (i.together != Together::nobody && (active != w_.live || i.together == Together::members) &&
          !together(w_, i, g, active))
        return;
      ++executed[g.pc];
      --left_;
      w_.code = g.pc;
      if (i.branch) {
        if (!branch(i, g, active)) return;
        continue;
      }
      if (w_.tiles_in_flight && !i.wgmma) check_registers_in_flight(w_, i);
      const Step step = i.handler(w_, i, active);
      if (w_.kernel->uses_wgmma && !i.wgmma) stamp_registers(w_, i);
      switch (step) {
        case Step::next:
          ++g.pc;
          break;
        case Step::yield:
          yielded_ = true;
          return settle(w_, g, g.pc + 1);
        default:
          yielded_ = true;
          return settle(w_, g, g.pc);
      }
    }
    settle(w_, g, g.pc);
  }

  // False when the group has to be chosen anew.
  bool branch(const Instruction& i, Group& g, uint32_t active) {
    if (!i.handler && active == g.lanes) {
      const bool back = i.target <= g.pc;
      g.pc = i.target;
      if (!back || !w_.diverged) return true;
      settle(w_, g, g.pc);  // others may be there already
      return false;
    }
    spread(w_, g, g.pc + 1);
    if (i.handler) {
      i.handler(w_, i, active);
    } else {
      for_lanes(active, [&](unsigned l) { w_.places[l] = i.target; });
    }
    return false;
  }

  Warp& w_;
  uint64_t left_;
  bool yielded_ = false;
};

uint32_t special_value(const Block& block, const Warp& w, const std::string& name, unsigned lane) {
  const cuda::Launch& launch = *block.context->launch;
  const uint32_t thread = w.index * 32 + lane;
  const auto axis = [&](const cuda::Dim3& d) {
    return name.back() == 'x' ? d.x : name.back() == 'y' ? d.y : d.z;
  };
  if (name.starts_with("%tid")) {
    const cuda::Dim3& b = launch.block;
    return axis({thread % b.x, thread / b.x % b.y, thread / (b.x * b.y)});
  }
  if (name.starts_with("%ctaid")) return axis(block.position);
  if (name.starts_with("%ntid")) return axis(launch.block);
  if (name.starts_with("%nctaid")) return axis(launch.grid);
  if (name == "%laneid") return lane;
  if (name == "%warpid") return w.index;
  if (name == "%nwarpid") return block.context->warps;
  if (name == "%lanemask_eq") return 1u << lane;
  if (name == "%lanemask_lt") return (1u << lane) - 1;
  if (name == "%lanemask_le") return (2u << lane) - 1;
  if (name == "%lanemask_gt") return ~((2u << lane) - 1);
  if (name == "%lanemask_ge") return ~((1u << lane) - 1);
  if (name == "%dynamic_smem_size") return launch.shared_bytes;
  if (name == "%total_smem_size") return block.context->shared_bytes;
  return name == "%cluster_nctarank" ? 1 : 0;
}

void prepare_warp(Block& block, Warp& w, unsigned index) {
  const Kernel& kernel = *block.context->kernel;
  constexpr uint64_t kPoison = 0x7fc0dead7fc0deadull;
  std::vector<uint64_t> registers = std::move(w.registers);
  w = Warp{};
  w.registers = std::move(registers);
  w.registers.assign(kernel.register_bytes / 8, kPoison);
  w.predicates = kernel.predicates;
  w.local.assign(size_t{kernel.local_bytes} * 32, std::byte{0xff});
  w.block = &block;
  w.kernel = &kernel;
  w.index = index;
  const unsigned threads = block.context->threads - index * 32;
  w.existing = w.live = threads >= 32 ? ~0u : (1u << threads) - 1;
  w.knows.seen.time[index] = 1;
  w.synchronized = 1;
  if (kernel.uses_wgmma) {
    w.register_stamps.assign(kernel.register_bytes / 128, 0);
    w.register_users.assign(kernel.register_bytes / 128, 0);
    w.register_readers.assign(kernel.register_bytes / 128, 0);
  }
  for (const auto& [place, name] : kernel.special_registers) {
    for (unsigned l = 0; l < 32; ++l) w.set_value(place, l, special_value(block, w, name, l));
  }
}

// Nobody can go on: says who waits for what.
void report_deadlock(Block& block) {
  std::string all;
  const Warp* first = nullptr;
  unsigned finished = 0;
  for (const Warp& w : block.warps) {
    finished += w.finished;
    if (w.finished) continue;
    if (!first) first = &w;
    all += (all.empty() ? ": " : "; ") + waiting_text(w);
  }
  if (finished) all += text("; ", finished, " warps have exited");
  block.error(*first, 0, "deadlock", all);
}

}  // namespace

void prepare_block(Block& block, const LaunchContext& context, uint32_t index) {
  const cuda::Dim3& grid = context.launch->grid;
  block.context = &context;
  block.index = index;
  block.position = {index % grid.x, index / grid.x % grid.y, index / (grid.x * grid.y)};
  block.shared.assign(context.shared_bytes, std::byte{0xff});
  block.shared_written.assign(context.shared_bytes, 0);
  block.shared_pages.resize((context.shared_bytes + kPageBytes - 1) / kPageBytes);
  for (Page& page : block.shared_pages) page.reset(context.warps);
  block.barriers.fill({});
  block.mbarriers.clear();
  block.atomics.clear();
  block.agents = kWarps;
  for (auto& issued : block.issued) issued.clear();
  block.instructions = 0;
  block.random.seed(static_cast<uint32_t>(context.options->schedule * 7919 + index + 1));
  block.executed.resize(context.kernel->code.size());
  if (context.options->profile) block.traffic.resize(context.kernel->code.size());
  block.warps.resize(context.warps);
  for (unsigned w = 0; w < context.warps; ++w) prepare_warp(block, block.warps[w], w);
  prepare_registers(block);
}

void run_block(Block& block) {
  const uint64_t limit = block.context->options->instruction_limit;
  const bool shuffled = block.context->options->schedule != 0;
  std::vector<unsigned> order(block.warps.size());
  std::iota(order.begin(), order.end(), 0u);
  for (;;) {
    if (shuffled) std::shuffle(order.begin(), order.end(), block.random);
    bool ran = false, all_finished = true;
    for (const unsigned index : order) {
      Warp& w = block.warps[index];
      if (w.finished || w.blocked) {
        all_finished = all_finished && w.finished;
        continue;
      }
      const uint64_t slice = shuffled ? 1 + block.random() % 2000 : kSlice;
      WarpRun run(w, slice);
      run.run();
      block.instructions += slice - run.left();
      ran = true;
      all_finished = all_finished && w.finished;
    }
    if (all_finished) return check_register_changes(block);
    if (!ran) return report_deadlock(block);
    if (block.instructions > limit) {
      block.error(block.warps[order[0]], 0, "hangs", text(": no end after ", limit, " warp instructions"));
      return;
    }
  }
}

}  // namespace longreach::ptx
