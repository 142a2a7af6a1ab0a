// Addresses of loads, stores and atomics: from what an instruction says to bytes on the host, through the
// shadow checks.
#pragma once
#include "tests/ptx/interpreter/machine.h"

namespace longreach::ptx {

// The bytes that lane `lane` may touch; null when the access was refused (and reported). `scratch` takes
// reads of refused places.
std::byte* resolve(Warp& w, const Instruction& i, unsigned lane, uint64_t address, unsigned bytes,
                   AccessKind kind);

// Orders of memory by atomics and strong accesses at an address (within a block).
enum class Order : uint8_t { relaxed, acquire, release, both };
void order_atomic(Warp& w, uint64_t address, bool writes, Order order);
void order_fence(Warp& w);

void count_traffic(const Warp& w, const Instruction& i, uint32_t mask, unsigned bytes);

}  // namespace longreach::ptx
