// The small kernels that training needs beside attention, for their element types. Norms: type of x, then of
// y. Blocks a multiprocessor are asked for where ptxas would hold registers back for more of them, and spill.
#include "layers/ops/rows/cuda/cross_entropy.cuh"
#include "layers/ops/rows/cuda/rms_norm.cuh"
#include "layers/ops/rows/cuda/rotary.cuh"
#include "layers/ops/rows/cuda/silu_product.cuh"

using namespace longreach::cuda;

extern "C" __global__ void __launch_bounds__(kRowThreads)
    rms_norm_bf16_bf16(const __grid_constant__ RmsNormParams p) {
  rms_norm<BFloat16, BFloat16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads, 4)
    rms_norm_grad_bf16_bf16(const __grid_constant__ RmsNormGradParams p) {
  rms_norm_grad<BFloat16, BFloat16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    rms_norm_fp16_fp16(const __grid_constant__ RmsNormParams p) {
  rms_norm<Float16, Float16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads, 4)
    rms_norm_grad_fp16_fp16(const __grid_constant__ RmsNormGradParams p) {
  rms_norm_grad<Float16, Float16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    rms_norm_fp32_bf16(const __grid_constant__ RmsNormParams p) {
  rms_norm<float, BFloat16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads, 4)
    rms_norm_grad_fp32_bf16(const __grid_constant__ RmsNormGradParams p) {
  rms_norm_grad<float, BFloat16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    rms_norm_fp32_fp16(const __grid_constant__ RmsNormParams p) {
  rms_norm<float, Float16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads, 4)
    rms_norm_grad_fp32_fp16(const __grid_constant__ RmsNormGradParams p) {
  rms_norm_grad<float, Float16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    rms_norm_fp32_fp32(const __grid_constant__ RmsNormParams p) {
  rms_norm<float, float>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads, 4)
    rms_norm_grad_fp32_fp32(const __grid_constant__ RmsNormGradParams p) {
  rms_norm_grad<float, float>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    column_sums(const __grid_constant__ ColumnSumParams p) {
  longreach::cuda::column_sums(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    rotary_halves_bf16(const __grid_constant__ RotaryParams p) {
  rotary_halves<BFloat16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    rotary_neighbours_bf16(const __grid_constant__ RotaryParams p) {
  rotary_neighbours<BFloat16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    rotary_halves_fp16(const __grid_constant__ RotaryParams p) {
  rotary_halves<Float16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    rotary_neighbours_fp16(const __grid_constant__ RotaryParams p) {
  rotary_neighbours<Float16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    rotary_halves_fp32(const __grid_constant__ RotaryParams p) {
  rotary_halves<float>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    rotary_neighbours_fp32(const __grid_constant__ RotaryParams p) {
  rotary_neighbours<float>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    silu_product_bf16(const __grid_constant__ SiluProductParams p) {
  silu_product<BFloat16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads, 5)
    silu_product_grad_bf16(const __grid_constant__ SiluProductParams p) {
  silu_product_grad<BFloat16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    silu_product_fp16(const __grid_constant__ SiluProductParams p) {
  silu_product<Float16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads, 5)
    silu_product_grad_fp16(const __grid_constant__ SiluProductParams p) {
  silu_product_grad<Float16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    silu_product_fp32(const __grid_constant__ SiluProductParams p) {
  silu_product<float>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    silu_product_grad_fp32(const __grid_constant__ SiluProductParams p) {
  silu_product_grad<float>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    cross_entropy_bf16(const __grid_constant__ CrossEntropyParams p) {
  cross_entropy<BFloat16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    cross_entropy_fp16(const __grid_constant__ CrossEntropyParams p) {
  cross_entropy<Float16>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads)
    cross_entropy_fp32(const __grid_constant__ CrossEntropyParams p) {
  cross_entropy<float>(p);
}
extern "C" __global__ void __launch_bounds__(kRowThreads) loss_sum(const __grid_constant__ LossSumParams p) {
  longreach::cuda::loss_sum(p);
}
