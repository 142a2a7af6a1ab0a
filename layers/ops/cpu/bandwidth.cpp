// Reading as fast as a core can: wide loads in several chains, requested ahead of their use as the kernels
// do.
#include "layers/ops/cpu/bandwidth.h"

#include <algorithm>
#include <atomic>

#include "layers/ops/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/cpu/bandwidth.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace longreach::bandwidth::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The exclusive or of all whole blocks, so that no load can be left out.
uint64_t read_piece(const uint8_t* data, int64_t bytes) {
  const hn::ScalableTag<uint64_t> d;
  constexpr int kChains = 4;
  constexpr int64_t kBytesAhead = 2048;
  hn::Vec<decltype(d)> chains[kChains];
  for (auto& chain : chains) chain = hn::Zero(d);
  const auto step = static_cast<int64_t>(hn::Lanes(d) * sizeof(uint64_t));
  for (int64_t i = 0; i + kChains * step <= bytes; i += kChains * step) {
#pragma GCC unroll 4
    for (int c = 0; c < kChains; ++c) {
      const uint8_t* at = data + i + c * step;
      __builtin_prefetch(at + kBytesAhead);
      chains[c] = hn::Xor(chains[c], hn::LoadU(d, reinterpret_cast<const uint64_t*>(at)));
    }
  }
  const auto all = hn::Xor(hn::Xor(chains[0], chains[1]), hn::Xor(chains[2], chains[3]));
  return hn::GetLane(hn::SumOfLanes(d, all));
}

}  // namespace longreach::bandwidth::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace longreach {
namespace bandwidth {
HWY_EXPORT(read_piece);
}  // namespace bandwidth

void read_memory(const void* data, int64_t bytes) {
  static std::atomic<uint64_t> sink{0};
  constexpr int64_t kPiece = 262144;
  const auto run = HWY_DYNAMIC_DISPATCH(bandwidth::read_piece);
  const auto* begin = static_cast<const uint8_t*>(data);
  parallel_tiles((bytes + kPiece - 1) / kPiece, [&](int64_t i) {
    const uint64_t seen = run(begin + i * kPiece, std::min(kPiece, bytes - i * kPiece));
    sink.fetch_xor(seen, std::memory_order_relaxed);
  });
}

}  // namespace longreach
#endif
