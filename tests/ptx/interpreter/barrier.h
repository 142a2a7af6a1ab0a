// Barriers of a block: bar.sync and its kin, and mbarriers.
#pragma once
#include <string>

#include "tests/ptx/interpreter/machine.h"

namespace longreach::ptx {

// Gives an mbarrier `arrivals` arrivals and `bytes` of expected (positive) or completed (negative)
// transactions, and ends its phase when nothing is pending; warps that wait are woken.
void advance_mbarrier(Block& block, MBarrier& barrier, unsigned arrivals, int64_t bytes);

// The mbarrier at an address of shared memory; null (and reported) when there is none.
MBarrier* find_mbarrier(Warp& w, unsigned lane, uint32_t address);

// "warp 0 waits at ...": what a blocked warp waits for.
std::string waiting_text(const Warp& w);

}  // namespace longreach::ptx
