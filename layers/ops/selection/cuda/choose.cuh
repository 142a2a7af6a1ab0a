// The choice of a row's blocks by one warp, from scores in shared memory, and choose_blocks.
//
//   kept = forced blocks, and of the others those whose score is above the cut, with the lowest of those at
//   the cut
//
// The cut is found bit by bit, from the highest that differs between the row's scores: scores become integers
// of the same order, and each step counts (top-k) or adds up (mass, in double) those that reach a trial
// value. Nothing is sorted, no step depends on the order of lanes. The list is put together where the scores
// were. A candidate's score that is NaN sets a flag, and the row's list means nothing.
// Memory traffic: a row's scores and its list once.
#pragma once
#include "layers/ops/cuda/attention/blocks.cuh"
#include "layers/ops/cuda/search.cuh"
#include "layers/ops/selection/cuda/params.h"

namespace longreach::selection {

inline constexpr uint32_t kKeyOfZero = 0x80000000u, kAboveAll = 0xffffffffu;

// Unsigned numbers in the order of the scores; -0 is 0.
__device__ __forceinline__ uint32_t key_of(float score) {
  const uint32_t bits = __float_as_uint(score + 0.0f);
  return bits ^ (static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u);
}
__device__ __forceinline__ float score_of(uint32_t key) {
  return __uint_as_float(key >> 31 ? key ^ 0x80000000u : ~key);
}

// The document that holds row or tile `index`: the last one that begins no later.
template <int32_t CudaScope::*kBegin>
__device__ __forceinline__ CudaScope find_scope(const CudaRule& rule, int index) {
  if (rule.scopes == nullptr) return rule.scope;
  const int found = cuda::find_begun<kBegin>(rule.scopes, rule.scope_count, index);
  const int4* words = reinterpret_cast<const int4*>(rule.scopes + found);
  const int4 a = words[0], b = words[1];
  return {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
}

// Positions of a row's first and last query.
struct QueryRange {
  int first, last;

  __device__ __forceinline__ QueryRange(const CudaRule& rule, const CudaScope& scope, int row)
      : first(rule.offset + row * rule.query_block), last(min(first + rule.query_block, scope.keys) - 1) {}
};

// Blocks [0, candidates); those before `begin` and from `end` on are forced, `spare` others may be kept.
struct RowLimits {
  int candidates, begin, end, spare;

  // row: of the document.
  __device__ __forceinline__ RowLimits(const CudaRule& rule, const CudaScope& scope, int row) {
    candidates = rule.causal ? QueryRange(rule, scope, row).last / rule.key_block + 1 : scope.blocks;
    begin = min(rule.first, candidates);
    end = candidates - min(rule.latest, candidates - begin);
    spare = max(scope.budget - begin - (candidates - end), 0);
  }
  __device__ __forceinline__ bool is_free(int block) const { return block >= begin && block < end; }
};

// Keys above `key` are kept, and the first `ties` equal to it.
struct Cut {
  uint32_t key;
  int ties;
};

__device__ __forceinline__ double sum_lanes(double x) {
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

// The free blocks of a row: each lane looks at every 32nd.
struct FreeKeys {
  const uint32_t* keys;
  int first, end;

  __device__ __forceinline__ FreeKeys(const uint32_t* row, const RowLimits& limits)
      : keys(row), first(lane_id() + max(limits.begin - lane_id() + 31, 0) / 32 * 32), end(limits.end) {}
  __device__ __forceinline__ int count(uint32_t least) const {
    int found = 0;
#pragma unroll 4
    for (int block = first; block < end; block += 32) found += keys[block] >= least;
    return __reduce_add_sync(kAllLanes, found);
  }
  __device__ __forceinline__ double sum(uint32_t least) const {
    double found = 0;
#pragma unroll 4
    for (int block = first; block < end; block += 32)
      if (keys[block] >= least) found += static_cast<double>(score_of(keys[block]));
    return sum_lanes(found);
  }
};

// The largest key from `low` to `high` that is enough, given that `low` is and that what is enough stays so
// below.
template <class Enough>
__device__ __forceinline__ uint32_t largest_key(uint32_t low, uint32_t high, Enough enough) {
  const int bits = 32 - __clz(static_cast<int>(low ^ high));
  uint32_t key = bits == 32 ? 0u : high >> bits << bits;
#pragma unroll 1
  for (int bit = bits - 1; bit >= 0; --bit) {
    const uint32_t larger = key | 1u << bit;
    if (enough(larger)) key = larger;
  }
  return key;
}

// What the first look at a row tells, in all lanes.
struct RowSummary {
  uint32_t low, high;    // of the free keys
  double total, forced;  // sums of scores, with mass
  bool nan;
};

// Scores become keys, where they are.
__device__ __forceinline__ RowSummary make_keys(const CudaRule& rule, const RowLimits& limits,
                                                uint32_t* keys) {
  RowSummary row{kAboveAll, 0, 0, 0, false};
  bool nan = false;
#pragma unroll 1
  for (int block = lane_id(); block < limits.candidates; block += 32) {
    const float score = __uint_as_float(keys[block]);
    const uint32_t key = key_of(score);
    keys[block] = key;
    nan = nan || score != score;
    if (limits.is_free(block)) row.low = min(row.low, key), row.high = max(row.high, key);
    if (!rule.has_mass) continue;
    row.total += static_cast<double>(score);
    if (!limits.is_free(block)) row.forced += static_cast<double>(score);
  }
  row.nan = __any_sync(kAllLanes, nan);
  row.low = __reduce_min_sync(kAllLanes, row.low);
  row.high = __reduce_max_sync(kAllLanes, row.high);
  if (rule.has_mass) row.total = sum_lanes(row.total), row.forced = sum_lanes(row.forced);
  return row;
}

__device__ __forceinline__ Cut cut_of_count(const FreeKeys& keys, const RowLimits& limits,
                                            const RowSummary& row) {
  const int free = limits.end - limits.begin;
  if (limits.spare >= free) return {0, free};
  if (limits.spare == 0) return {kAboveAll, 0};
  const uint32_t key =
      largest_key(row.low, row.high, [&](uint32_t least) { return keys.count(least) >= limits.spare; });
  return {key, limits.spare - keys.count(key + 1)};
}

// The fewest of the best that reach the share; those of no weight bring the sum no nearer.
__device__ __forceinline__ Cut cut_of_mass(const CudaRule& rule, const FreeKeys& keys,
                                           const RowSummary& row) {
  const double wanted = rule.mass * row.total;
  if (!(row.forced < wanted) || row.high <= kKeyOfZero) return {kAboveAll, 0};
  const uint32_t low = max(row.low, kKeyOfZero + 1);
  const auto enough = [&](uint32_t least) { return row.forced + keys.sum(least) >= wanted; };
  if (!enough(low)) return {kKeyOfZero, 0};
  const uint32_t key = largest_key(low, row.high, enough);
  const int equal = keys.count(key) - keys.count(key + 1);
  double sum = row.forced + keys.sum(key + 1);
  int ties = 0;
#pragma unroll 1
  for (; ties < equal && sum < wanted; ++ties) sum += static_cast<double>(score_of(key));
  return {key, ties};
}

// Writes the list of row `list_row` of all lists; the row's scores, in shared memory, are used up. All lanes
// of a warp.
__device__ __forceinline__ void choose_row(const CudaRule& rule, const RowLimits& limits, uint32_t* keys,
                                           int64_t list_row) {
  const RowSummary row = make_keys(rule, limits, keys);
  if (row.nan) {
    if (lane_id() == 0) atomicMax(rule.status, 1);
    return;
  }
  const FreeKeys free(keys, limits);
  Cut cut = cut_of_count(free, limits, row);
  if (rule.has_mass) {
    // Both keep the first of one order: the shorter part.
    const Cut other = cut_of_mass(rule, free, row);
    if (other.key > cut.key || (other.key == cut.key && other.ties < cut.ties)) cut = other;
  }
  const uint32_t threshold = rule.has_threshold ? key_of(rule.threshold) : 0u;
  const unsigned before = (1u << lane_id()) - 1;
  int kept = 0;
#pragma unroll 1
  for (int base = 0; base < limits.candidates; base += 32) {
    const int block = base + lane_id();
    const bool there = block < limits.candidates, free_block = there && limits.is_free(block);
    const uint32_t key = there ? keys[block] : 0u;
    const unsigned equal = __ballot_sync(kAllLanes, free_block && key == cut.key);
    const bool best = key > cut.key || (key == cut.key && __popc(equal & before) < cut.ties);
    const unsigned chosen = __ballot_sync(kAllLanes, there && (!free_block || (best && key > threshold)));
    cut.ties -= __popc(equal);
    __syncwarp();  // everyone has read this part: the list grows no faster than it is read
    if (chosen >> lane_id() & 1) keys[kept + __popc(chosen & before)] = static_cast<uint32_t>(block);
    kept += __popc(chosen);
  }
  __syncwarp();
  if (rule.indices == nullptr) {
    if (lane_id() == 0) atomicMax(rule.status + 1, kept);
    return;
  }
  int32_t* list = rule.indices + list_row * rule.size;
#pragma unroll 1
  for (int i = lane_id(); i < rule.size; i += 32) list[i] = i < kept ? static_cast<int32_t>(keys[i]) : -1;
}

// A warp has a row.
__device__ __forceinline__ void choose(const CudaChoose& p) {
  extern __shared__ __align__(128) char shared[];
  const int64_t index = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + warp_id();
  if (index >= static_cast<int64_t>(p.lists) * p.rule.rows) return;
  const int row = static_cast<int>(index % p.rule.rows);
  const CudaScope scope = find_scope<&CudaScope::row>(p.rule, row);
  const RowLimits limits(p.rule, scope, row - scope.row);
  uint32_t* keys = reinterpret_cast<uint32_t*>(shared) + warp_id() * p.pitch;
  const float* scores = p.scores + index * p.blocks;
#pragma unroll 4
  for (int block = lane_id(); block < limits.candidates; block += 32)
    keys[block] = __float_as_uint(scores[block]);
  choose_row(p.rule, limits, keys, index);
}

}  // namespace longreach::selection
