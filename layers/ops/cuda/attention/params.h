// What the CUDA kernels of attention share: plain data that kernels (nvcc) and launch plans (any compiler)
// agree on. Rows in memory, terms of the backward pass, the passes over rows (rows.cuh), and how a block is
// cut.
#pragma once
#include <cstdint>

namespace longreach::cuda::attention {

// Rows [batch, token, head, element] in device memory: strides in bytes, elements dense.
struct CudaRows {
  char* data;
  int64_t batch, token, head;
  int32_t size;      // elements a row
  int32_t aligned;   // every row starts at a multiple of 16 bytes and is a multiple of 16 bytes long
  int32_t is_float;  // outputs: fp32 whatever the inputs are
};

// A tile of queries or keys: `first` counts rows from the start of the document. 32 bytes, read at once.
struct CudaTile {
  int32_t first;
  int32_t q_begin, q_end, k_begin, k_end;  // of the document
  int32_t query_tile;                      // key tiles: number of the document's first tile of queries
  int32_t unused[2];
};

// The two numbers of a query that the backward pass needs: lse in base 2 (+inf where nothing is seen, so that
// weights become 0) and delta = dO . O - d(lse).
struct CudaTerms {
  float lse, delta;
};

// terms from lse, o, d_o and d_lse (or null).
struct CudaRowTerms {
  CudaRows o, d_o;
  const float *lse, *d_lse;
  CudaTerms* terms;
  int32_t batches, heads, queries;
};

// out = sum of `parts` neighbouring heads of `in`, which is fp32.
struct CudaSumHeads {
  CudaRows in, out;
  int32_t parts, batches, tokens, heads;
};

// Rows that are not aligned, to rows that are.
struct CudaAlign {
  CudaRows in, out;
  int32_t batches, tokens, heads;
};

inline constexpr int kRowThreads = 128;  // of the kernels over rows: four warps

// How a block is cut: its warps stand row_warps x key_warps; each has row_tiles * 16 rows and its share of
// the `columns` rows of every streamed tile.
struct TileShape {
  int row_tiles, row_warps, key_warps, columns, stages;

  constexpr int rows() const { return 16 * row_tiles * row_warps; }
  constexpr int threads() const { return 32 * row_warps * key_warps; }
};

// Which gradients one kernel makes: accumulators of both do not fit the registers for the largest heads.
enum class KeyGradients : int32_t { kBoth, kKeys, kValues };

constexpr int larger(int a, int b) { return a > b ? a : b; }

}  // namespace longreach::cuda::attention
