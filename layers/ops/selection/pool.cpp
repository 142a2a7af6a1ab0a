// pool_blocks: checks, the kernels, and the door to autograd.
#include <ATen/ops/empty.h>

#include <algorithm>

#include "layers/ops/common/autograd.h"
#include "layers/ops/common/check.h"
#include "layers/ops/common/kernel_input.h"
#include "layers/ops/selection/cuda/op.h"
#include "layers/ops/selection/windows.h"

namespace longreach {
namespace {

using selection::Pooling;

class PoolBlocks final : public FusedOp {
 public:
  PoolBlocks(const std::vector<Pool>& pools, const PoolWindows& windows, const at::Tensor& x)
      : width_(windows.width),
        stride_(windows.stride),
        sizes_(x.sizes().vec()),
        documents_(selection::document_windows(windows, x.size(1))) {
    for (const Pool pool : pools) {
      pools_.push_back(pool == Pool::mean  ? selection::PoolKind::mean
                       : pool == Pool::max ? selection::PoolKind::max
                                           : selection::PoolKind::min);
      picking_ += pool != Pool::mean;
    }
    for (const PackedDocument& document : documents_) windows_ += document.windows;
  }

  std::string name() const override { return "pool_blocks"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    const at::Tensor x = dense_rows(inputs[0]);
    const auto sides = static_cast<int64_t>(pools_.size());
    const at::Tensor pooled = at::empty({sizes_[0], windows_, sizes_[2], sides * sizes_[3]}, x.options());
    const at::Tensor picked =
        at::empty({sizes_[0], windows_, sizes_[2], picking_, sizes_[3]}, x.options().dtype(at::kInt));
    const Pooling p = pooling(x, pooled, picked);
    runs_on_cuda(x) ? selection::pool_cuda(p, x) : selection::pool_cpu(p);
    saved = {picked};
    return {pooled};
  }

  Tensors backward(const Tensors& saved, const Tensors& grads, const std::vector<bool>&) const override {
    if (!grads[0].defined()) return {at::Tensor()};
    const at::Tensor grad = dense_rows(grads[0]), dx = at::empty(sizes_, grad.options());
    const Pooling p = pooling(dx, grad, saved[0]);
    runs_on_cuda(grad) ? selection::pool_backward_cuda(p, grad) : selection::pool_backward_cpu(p);
    return {dx};
  }

 private:
  Pooling pooling(const at::Tensor& x, const at::Tensor& pooled, const at::Tensor& picked) const {
    return {.dtype = kernel_dtype(x),
            .batches = sizes_[0],
            .heads = sizes_[2],
            .size = sizes_[3],
            .width = width_,
            .stride = stride_,
            .documents = documents_.data(),
            .document_count = static_cast<int64_t>(documents_.size()),
            .tokens = sizes_[1],
            .windows = windows_,
            .pools = pools_.data(),
            .pool_count = static_cast<int64_t>(pools_.size()),
            .picking = picking_,
            .x = strided(x),
            .pooled = strided(pooled),
            .picked = picked.mutable_data_ptr<int32_t>()};
  }

  int64_t width_, stride_, windows_ = 0, picking_ = 0;
  std::vector<int64_t> sizes_;
  std::vector<PackedDocument> documents_;
  std::vector<selection::PoolKind> pools_;
};

}  // namespace

at::Tensor pool_blocks(const at::Tensor& x, const std::vector<Pool>& pools, const PoolWindows& windows) {
  selection::check_pool(x, pools, windows);
  check<DtypeError>(x.scalar_type() != at::kDouble,
                    "x: dtype Double, expected Float or BFloat16; pool_blocks_reference takes Double");
  expect_kernel_input(x, "x");
  return differentiable(std::make_shared<PoolBlocks>(pools, windows, x), {x})[0];
}

at::Tensor pool_blocks_by(Implementation implementation, const at::Tensor& x, const std::vector<Pool>& pools,
                          const PoolWindows& windows) {
  return (implementation == Implementation::fused ? pool_blocks : pool_blocks_reference)(x, pools, windows);
}

}  // namespace longreach
