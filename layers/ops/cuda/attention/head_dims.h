// Head dims that attention kernels are built for.
#pragma once

namespace longreach::cuda::attention {

struct HeadDims {
  int qk, v;
};

}  // namespace longreach::cuda::attention
