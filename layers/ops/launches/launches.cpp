#include "layers/ops/launches/launches.h"

#include "layers/ops/block_attention/cuda/launches.h"
#include "layers/ops/interval_attention/cuda/launches.h"
#include "layers/ops/merge/cuda/launches.h"
#include "layers/ops/recurrence/cuda/launches.h"
#include "layers/ops/rows/cuda/launches.h"
#include "layers/ops/selection/cuda/launches.h"

namespace longreach {

std::vector<cuda::NamedLaunch> named_launches() {
  cuda::NamedLaunches all;
  interval::add_launches(all);
  block::add_launches(all);
  selection::add_launches(all);
  merge_kernels::add_launches(all);
  recurrence_cuda::add_launches(all);
  cuda::add_row_launches(all);
  return all.take();
}

}  // namespace longreach
