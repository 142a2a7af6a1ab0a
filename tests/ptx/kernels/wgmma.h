// Parameters and faults of the wgmma test kernel.
#pragma once
#include "layers/ops/cuda/launch.h"

namespace longreach::ptx {

struct WgmmaParameters {
  cuda::EncodedTensorMap q;  // [rows, depth] bf16, boxes of 64 x 64
  cuda::EncodedTensorMap k;  // the same, or [depth, rows] when transposed
  cuda::EncodedTensorMap s;  // [rows, rows] fp32, boxes of 64 x 64, not swizzled
  int depth;
  int transposed;
};

enum class WgmmaFault {
  none,
  wrong_bytes,
  one_warp_waits,
  no_wait_for_empty,
  no_wgmma_fence,
  wrong_step,
  early_release,
  no_wait_for_wgmma,
  no_init_fence,
  no_proxy_fence,
  no_wait_for_store
};

}  // namespace longreach::ptx
