// The largest entry and the sum of P over each pair of a query block and a listed key block, out of one pass
// of the online softmax, for every Highway target.
//
// A tile of P^T is relative to the running maxima m of its queries. Per query and entry of the list we keep
// m, the largest p and the sum of p; at the end, when lse is known, P = p 2^(m - lse).
#if defined(LONGREACH_LAYERS_OPS_BLOCK_ATTENTION_STATISTICS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LONGREACH_LAYERS_OPS_BLOCK_ATTENTION_STATISTICS_INL_H_
#undef LONGREACH_LAYERS_OPS_BLOCK_ATTENTION_STATISTICS_INL_H_
#else
#define LONGREACH_LAYERS_OPS_BLOCK_ATTENTION_STATISTICS_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "layers/ops/block_attention/cpu/plan.h"
#include "layers/ops/cpu/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace longreach::block::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using namespace softmax_tile::HWY_NAMESPACE;

class EntryStatistics {
 public:
  // For one tile of rows. 3 x kTile floats an entry.
  void open(int64_t slots) {
    float* space = space_.get(3 * slots * kTile);
    maximum_ = space, largest_ = space + slots * kTile, sum_ = space + 2 * slots * kTile;
    std::fill(maximum_, maximum_ + slots * kTile, kNoMaximum);
    std::fill(largest_, largest_ + 2 * slots * kTile, 0.0f);
    slots_ = slots;
  }

  void add(const ListedKeys& keys, const float* p, const Statistics& statistics, int64_t columns) {
    const FloatTag d;
    for (int i = 0; i < keys.segment_count; ++i) {
      const auto& segment = keys.segments[i];
      for (int64_t c = 0; c < columns; c += kLanes) {
        const int64_t at = segment.slot * kTile + c;
        const auto maximum = hn::LoadU(d, statistics.maximum + c);
        const auto due = vec::exp2_bounded(d, hn::Sub(hn::LoadU(d, maximum_ + at), maximum));
        auto largest = hn::Mul(hn::LoadU(d, largest_ + at), due), sum = hn::Mul(hn::LoadU(d, sum_ + at), due);
        for (int64_t j = segment.from; j < segment.to; ++j) {
          const auto x = hn::LoadU(d, p + j * kTile + c);
          largest = hn::Max(largest, x);
          sum = hn::Add(sum, x);
        }
        hn::StoreU(maximum, d, maximum_ + at);
        hn::StoreU(largest, d, largest_ + at);
        hn::StoreU(sum, d, sum_ + at);
      }
    }
  }

  // Takes what the queries [column, column + count) of the tile say into out_max and out_sum [slots].
  void reduce(const Statistics& statistics, int64_t column, int64_t count, float* out_max,
              float* out_sum) const {
    const FloatTag d;
    alignas(64) float inverse[kTile], weight[kTile];
    // Queries that see nothing: no weight.
    for (int64_t c = 0; c < kTile; ++c) inverse[c] = statistics.sees[c] ? 1.0f / statistics.sum[c] : 0.0f;
    const int64_t first = column / kLanes * kLanes;
    for (int64_t s = 0; s < slots_; ++s) {
      const int64_t at = s * kTile;
      for (int64_t c = first; c < column + count; c += kLanes)
        hn::StoreU(hn::Mul(vec::exp2_bounded(d, hn::Sub(hn::LoadU(d, maximum_ + at + c),
                                                        hn::LoadU(d, statistics.maximum + c))),
                           hn::LoadU(d, inverse + c)),
                   d, weight + c);
      for (int64_t c = column; c < column + count; ++c) {
        if (sum_[at + c] == 0) continue;  // not seen: a weight of NaN is not its own
        const float largest = largest_[at + c] * weight[c];
        if (largest > out_max[s] || std::isnan(largest)) out_max[s] = largest;
        out_sum[s] += sum_[at + c] * weight[c];
      }
    }
  }

 private:
  simd::Scratch<float> space_;
  float *maximum_ = nullptr, *largest_ = nullptr, *sum_ = nullptr;
  int64_t slots_ = 0;
};

}  // namespace longreach::block::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // LONGREACH_LAYERS_OPS_BLOCK_ATTENTION_STATISTICS_INL_H_
