// How fast this machine reads memory, measured: nothing that reads as much can be faster.
#pragma once
#include <cstdint>

namespace longreach {

// Reads `bytes` bytes from `data` once, on all threads, with the widest loads that the CPU has, asked for
// ahead of their use; does nothing with them.
void read_memory(const void* data, int64_t bytes);

}  // namespace longreach
