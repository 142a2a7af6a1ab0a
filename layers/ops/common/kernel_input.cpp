// Devices and dtypes that kernels are built for.
#include "layers/ops/common/kernel_input.h"

#include "layers/ops/common/check.h"
#include "layers/ops/cuda/backend.h"

namespace longreach {

bool runs_on_cuda(const at::Tensor& tensor) { return tensor.is_cuda() || cuda::backend_is_replaced(); }

void expect_kernel_input(const at::Tensor& tensor, std::string_view name) {
  check<ShapeError>(tensor.is_cpu() || tensor.is_cuda(), name, ": on ", tensor.device().str(),
                    ", expected the CPU or CUDA");
  if (runs_on_cuda(tensor))
    expect_dtype(tensor, name, {at::kFloat, at::kBFloat16, at::kHalf});
  else
    expect_dtype(tensor, name, {at::kFloat, at::kBFloat16});
}

DType kernel_dtype(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return DType::kFloat32;
    case at::kHalf:
      return DType::kFloat16;
    default:
      return DType::kBFloat16;
  }
}

at::Tensor dense_rows(const at::Tensor& x) {
  return x.size(-1) <= 1 || x.stride(-1) == 1 ? x : x.contiguous();
}

Strided strided(const at::Tensor& x) { return {x.data_ptr(), x.stride(0), x.stride(1), x.stride(2)}; }

}  // namespace longreach
