// The interpreter's own test object for sm_90a: s = q k^T in tiles of 64 x 64 over a depth of 128, by a warp
// that loads with TMA through two stages and a warpgroup that multiplies with wgmma; the tile leaves through
// shared memory by a TMA store. Each fault is the same kernel with one mistake.
#include <cstdint>

#include "layers/ops/cuda/launch.h"
#include "tests/ptx/kernels/wgmma.h"

namespace longreach::ptx {

constexpr int kStages = 2, kStageBytes = 2 * 8192, kTile = 64;

__device__ uint32_t address_of(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

__device__ void barrier_init(uint32_t barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
__device__ void barrier_expect(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ void barrier_wait(uint32_t barrier, int parity) {
  uint32_t done = 0;
  while (!done) {
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.b32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  }
}
__device__ void load_box(uint32_t shared, const void* map, uint32_t barrier, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], "
      "[%2];" ::"r"(shared),
      "l"(map), "r"(barrier), "r"(x), "r"(y)
      : "memory");
}
__device__ void store_box(uint32_t shared, const void* map, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%1, {%2, %3}], [%0];" ::"r"(shared),
               "l"(map), "r"(x), "r"(y)
               : "memory");
}
// K-major tiles with rows of 128 bytes, swizzled; MN-major ones have the same bits here (one chunk of 64).
__device__ uint64_t descriptor(uint32_t shared) {
  return static_cast<uint64_t>((shared & 0x3ffff) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}
template <bool Transposed>
__device__ void multiply(float (&d)[32], uint64_t a, uint64_t b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, "
      "%11, %12, %13, %14, "
      "%15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, p, 1, "
      "1, 0, %35;\n}"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
        "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]),
        "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
        "+f"(d[30]), "+f"(d[31])
      : "l"(a), "l"(b), "r"(add), "n"(Transposed ? 1 : 0));
}

template <WgmmaFault F>
__device__ void produce(const WgmmaParameters& p, uint32_t tiles, uint32_t full, uint32_t empty) {
  for (int step = 0; step < p.depth / 64; ++step) {
    const int stage = step % kStages;
    if (F != WgmmaFault::no_wait_for_empty) barrier_wait(empty + 8 * stage, step / kStages % 2 ^ 1);
    barrier_expect(full + 8 * stage, F == WgmmaFault::wrong_bytes ? kStageBytes / 2 : kStageBytes);
    const uint32_t at = tiles + stage * kStageBytes;
    load_box(at, &p.q, full + 8 * stage, step * 64, blockIdx.x * kTile);
    load_box(at + 8192, &p.k, full + 8 * stage, p.transposed ? blockIdx.y * kTile : step * 64,
             p.transposed ? step * 64 : blockIdx.y * kTile);
  }
}

template <WgmmaFault F>
__device__ void consume(const WgmmaParameters& p, uint32_t tiles, uint32_t full, uint32_t empty,
                        float (&d)[32]) {
  for (int step = 0; step < p.depth / 64; ++step) {
    const int stage = step % kStages;
    if (F != WgmmaFault::one_warp_waits || threadIdx.x < 32)
      barrier_wait(full + 8 * stage, step / kStages % 2);
    const uint32_t at = tiles + stage * kStageBytes;
    if (F != WgmmaFault::no_wgmma_fence) asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const uint64_t a = descriptor(at) + k * 2, b = descriptor(at + 8192);
      if (p.transposed) {
        multiply<true>(d, a, b + k * 128, step + k > 0);
      } else {
        multiply<false>(d, a, b + k * (F == WgmmaFault::wrong_step ? 4 : 2), step + k > 0);
      }
    }
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    if (F == WgmmaFault::early_release) barrier_arrive(empty + 8 * stage);
    if (F != WgmmaFault::no_wait_for_wgmma) asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    if (F != WgmmaFault::early_release) barrier_arrive(empty + 8 * stage);
  }
}

template <WgmmaFault F>
__device__ void kernel(const WgmmaParameters& p) {
  extern __shared__ __align__(1024) unsigned char shared[];
  const uint32_t tiles = address_of(shared), out = tiles + kStages * kStageBytes, full = out + 16384,
                 empty = full + 8 * kStages;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      barrier_init(full + 8 * s, 1);
      barrier_init(empty + 8 * s, 128);
    }
    if (F != WgmmaFault::no_init_fence) asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if (threadIdx.x >= 128) {
    if (threadIdx.x == 128) produce<F>(p, tiles, full, empty);
    return;
  }
  float d[32] = {};
  consume<F>(p, tiles, full, empty, d);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const int row = warp * 16 + lane / 4 + 8 * (i / 2 % 2), column = i / 4 * 8 + lane % 4 * 2 + i % 2;
    reinterpret_cast<float*>(shared + kStages * kStageBytes)[row * 64 + column] = d[i];
  }
  if (F != WgmmaFault::no_proxy_fence) asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  asm volatile("bar.sync 1, 128;" ::: "memory");
  if (threadIdx.x == 0) {
    store_box(out, &p.s, blockIdx.y * kTile, blockIdx.x * kTile);
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
    if (F != WgmmaFault::no_wait_for_store) asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
  }
}

extern "C" __global__ void __launch_bounds__(160) wgmma_none(const __grid_constant__ WgmmaParameters p) {
  kernel<WgmmaFault::none>(p);
}
extern "C" __global__ void __launch_bounds__(160)
    wgmma_wrong_bytes(const __grid_constant__ WgmmaParameters p) {
  kernel<WgmmaFault::wrong_bytes>(p);
}
extern "C" __global__ void __launch_bounds__(160)
    wgmma_one_warp_waits(const __grid_constant__ WgmmaParameters p) {
  kernel<WgmmaFault::one_warp_waits>(p);
}
extern "C" __global__ void __launch_bounds__(160)
    wgmma_no_wait_for_empty(const __grid_constant__ WgmmaParameters p) {
  kernel<WgmmaFault::no_wait_for_empty>(p);
}
extern "C" __global__ void __launch_bounds__(160)
    wgmma_no_wgmma_fence(const __grid_constant__ WgmmaParameters p) {
  kernel<WgmmaFault::no_wgmma_fence>(p);
}
extern "C" __global__ void __launch_bounds__(160)
    wgmma_wrong_step(const __grid_constant__ WgmmaParameters p) {
  kernel<WgmmaFault::wrong_step>(p);
}
extern "C" __global__ void __launch_bounds__(160)
    wgmma_early_release(const __grid_constant__ WgmmaParameters p) {
  kernel<WgmmaFault::early_release>(p);
}
extern "C" __global__ void __launch_bounds__(160)
    wgmma_no_wait_for_wgmma(const __grid_constant__ WgmmaParameters p) {
  kernel<WgmmaFault::no_wait_for_wgmma>(p);
}
extern "C" __global__ void __launch_bounds__(160)
    wgmma_no_init_fence(const __grid_constant__ WgmmaParameters p) {
  kernel<WgmmaFault::no_init_fence>(p);
}
extern "C" __global__ void __launch_bounds__(160)
    wgmma_no_proxy_fence(const __grid_constant__ WgmmaParameters p) {
  kernel<WgmmaFault::no_proxy_fence>(p);
}
extern "C" __global__ void __launch_bounds__(160)
    wgmma_no_wait_for_store(const __grid_constant__ WgmmaParameters p) {
  kernel<WgmmaFault::no_wait_for_store>(p);
}

}  // namespace longreach::ptx
