// Lists of blocks turned round: count, scan, fill.
#include "layers/ops/block_attention/cuda/transpose.cuh"

namespace longreach::block {

extern "C" __global__ void __launch_bounds__(kTransposeThreads)
    block_attention_transpose_count(const __grid_constant__ CudaTranspose p) {
  count_entries(p);
}
extern "C" __global__ void __launch_bounds__(kScanThreads)
    block_attention_transpose_scan(const __grid_constant__ CudaTranspose p) {
  scan_counts(p);
}
extern "C" __global__ void __launch_bounds__(kTransposeThreads)
    block_attention_transpose_fill(const __grid_constant__ CudaTranspose p) {
  fill_entries(p);
}

}  // namespace longreach::block
