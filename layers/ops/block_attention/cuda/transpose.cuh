// Lists of blocks turned round, for the gradients of keys and values: which rows list a block, in rising
// order. Three launches: chunks of rows count their entries of each block; a scan over chunks and blocks
// gives each chunk its places; the chunks fill them. A chunk has one warp, which goes through its rows in
// their order, and no row names a block twice, so that nothing depends on the order in which warps and lanes
// run. The counters of a chunk are its own; they rise by (integer) atomics so that even lists that do name a
// block twice stay inside their memory.
//
// Memory: counts [lists, chunks, blocks], with at most 256 chunks; starts; one number an entry of the lists.
#pragma once
#include "layers/ops/block_attention/cuda/lists.cuh"

namespace longreach::block {

// A warp's chunk of the rows of one list.
struct Chunk {
  int number;
  int64_t list;
  bool valid;
  int32_t* counts;

  __device__ __forceinline__ explicit Chunk(const CudaTranspose& p) {
    const int64_t index = static_cast<int64_t>(blockIdx.x) * (kTransposeThreads / 32) + warp_id();
    number = static_cast<int>(index % p.chunks);
    list = index / p.chunks;
    valid = list < static_cast<int64_t>(p.lists.batches) * p.lists.heads;
    counts = p.counts + index * p.lists.blocks;
  }

  // visit(row, block) for every entry that some query of its row perhaps sees: 32 entries of a row at once.
  template <class Visit>
  __device__ __forceinline__ void visit_entries(const CudaTranspose& p, Visit visit) const {
    const int end = min((number + 1) * p.chunk_rows, p.lists.rows);
#pragma unroll 1
    for (int row = number * p.chunk_rows; row < end; ++row) {
      const ListRow queries(p.lists, row);
      const KeyLimit limits(p.lists, queries.document);
      const int seen = (limits.of(queries.q_end - 1) + p.lists.key_block - 1) / p.lists.key_block;
      const int32_t* entries = p.lists.indices + (list * p.lists.rows + row) * p.lists.entries;
#pragma unroll 1
      for (int first = 0; first < p.lists.entries; first += 32) {
        const int index = first + lane_id();
        const int block = index < p.lists.entries ? entries[index] : -1;
        if (static_cast<unsigned>(block) < static_cast<unsigned>(seen))
          visit(row, queries.document.block_begin + block);
        __syncwarp();
      }
    }
  }
};

__device__ __forceinline__ void count_entries(const CudaTranspose& p) {
  const Chunk chunk(p);
  if (!chunk.valid) return;
  for (int block = lane_id(); block < p.lists.blocks; block += 32) chunk.counts[block] = 0;
  __syncwarp();
  chunk.visit_entries(p, [&](int, int block) { atomicAdd(chunk.counts + block, 1); });
}

__device__ __forceinline__ void fill_entries(const CudaTranspose& p) {
  const Chunk chunk(p);
  if (!chunk.valid) return;
  const int32_t* starts = p.starts + chunk.list * (p.lists.blocks + 1);
  int32_t* rows = p.rows + chunk.list * p.lists.rows * p.lists.entries;
  chunk.visit_entries(
      p, [&](int row, int block) { rows[starts[block] + atomicAdd(chunk.counts + block, 1)] = row; });
}

// A block has one list: counts become places within each block, starts the sums over blocks.
__device__ __forceinline__ void scan_counts(const CudaTranspose& p) {
  __shared__ int warp_sums[kScanThreads / 32];
  const int64_t list = blockIdx.x;
  int32_t* counts = p.counts + list * p.chunks * p.lists.blocks;
  int32_t* starts = p.starts + list * (p.lists.blocks + 1);
  int carry = 0;
#pragma unroll 1
  for (int first = 0; first < p.lists.blocks; first += kScanThreads) {
    const int block = first + static_cast<int>(threadIdx.x);
    int total = 0;
    for (int chunk = 0; chunk < p.chunks && block < p.lists.blocks; ++chunk) {
      int32_t* at = counts + static_cast<int64_t>(chunk) * p.lists.blocks + block;
      const int here = *at;
      *at = total;
      total += here;
    }
    int sum = total;  // of this lane and those before it
#pragma unroll
    for (int step = 1; step < 32; step <<= 1) {
      const int before = __shfl_up_sync(kAllLanes, sum, step);
      if (lane_id() >= step) sum += before;
    }
    if (lane_id() == 31) warp_sums[warp_id()] = sum;
    __syncthreads();
    int all = 0;
#pragma unroll
    for (int warp = 0; warp < kScanThreads / 32; ++warp) {
      if (warp == warp_id()) sum += all;
      all += warp_sums[warp];
    }
    if (block < p.lists.blocks) starts[block] = carry + sum - total;
    carry += all;
    __syncthreads();
  }
  if (threadIdx.x == 0) starts[p.lists.blocks] = carry;
}

}  // namespace longreach::block
