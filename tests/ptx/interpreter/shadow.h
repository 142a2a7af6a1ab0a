// Shadow state: for each 32-bit word of shared and global memory, who wrote and who read it last, as times on
// the vector clocks of the block's warps. An access is a race when the other one is not known to lie before
// it. 8- and 16-bit reads are kept by byte; a write is kept by word, with a mask of the bytes that its last
// writer wrote.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

namespace longreach::ptx {

// Warps are agents 0..31 of a block's clocks; mbarriers, on whose behalf TMA writes, are agents from 32 on.
inline constexpr unsigned kWarps = 32, kAgents = 64;

struct Clocks {
  alignas(64) std::array<uint32_t, kAgents> time{};
  void join(const Clocks& other) {
    for (unsigned i = 0; i < kAgents; ++i) time[i] = std::max(time[i], other.time[i]);
  }
};

// What one warp knows: which events lie before it, and which of the writes among them a proxy fence has
// passed on to the asynchronous proxy.
struct Knowledge {
  Clocks seen, fenced;
  void join(const Knowledge& other) {
    seen.join(other.seen);
    fenced.join(other.fenced);
  }
};

inline constexpr unsigned kManyLanes = 63;  // the warp as a whole, or several lanes

struct WriteRecord {
  uint32_t time = 0;  // 0: not written in this launch
  uint8_t agent = 0;
  uint8_t lane = 0;
  uint8_t bytes = 0;  // mask
  uint8_t flags = 0;
};
enum WriteFlags : uint8_t { kAtomic = 1, kInFlight = 2, kAsyncProxy = 4, kMixedLanes = 8 };

// The read of a warp: time << 6 | lane. kReading: an asynchronous read that has not been waited for.
inline constexpr uint32_t kReading = 0xffffffff;

inline constexpr unsigned kPageShift = 10, kPageBytes = 1u << kPageShift, kPageWords = kPageBytes / 4;

struct Page {
  std::array<WriteRecord, kPageWords> write{};
  std::array<uint32_t, kPageWords> write_code{}, read_code{};
  std::array<uint8_t, kPageWords>
      touched{};  // kTouchedRead, kTouchedWrite, kTouchedAtomic: global memory alone
  std::array<uint8_t, kPageWords> read_bytes{};  // masks of what was read: global memory alone
  std::vector<uint32_t> reads;                   // [warps][kPageWords]
  std::vector<uint32_t> byte_reads;  // [warps][kPageWords][4] of 8- and 16-bit reads; empty without any

  void reset(unsigned warps) {
    write.fill({});
    touched.fill(0);
    read_bytes.fill(0);
    byte_reads.clear();
    reads.assign(size_t{warps} * kPageWords, 0);
  }
};
enum Touched : uint8_t { kTouchedRead = 1, kTouchedWrite = 2, kTouchedAtomic = 4 };

}  // namespace longreach::ptx
