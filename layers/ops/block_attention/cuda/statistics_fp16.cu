// Statistics of listed blocks, fp16: head dims of queries 64, 128, 192. Smaller ones are filled up.
#include "layers/ops/block_attention/cuda/statistics.cuh"

namespace longreach::block {

extern "C" __global__ void __launch_bounds__(128)
    block_attention_statistics_fp16_64(const __grid_constant__ CudaStatistics p) {
  statistics<cuda::Float16, 64>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    block_attention_statistics_fp16_128(const __grid_constant__ CudaStatistics p) {
  statistics<cuda::Float16, 128>(p);
}
extern "C" __global__ void __launch_bounds__(128)
    block_attention_statistics_fp16_192(const __grid_constant__ CudaStatistics p) {
  statistics<cuda::Float16, 192>(p);
}

}  // namespace longreach::block
