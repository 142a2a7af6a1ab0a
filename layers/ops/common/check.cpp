// Shape and dtype checks of operators: the message names the argument, what was given and what is allowed.
#include "layers/ops/common/check.h"

#include <limits>

#include <c10/core/ScalarType.h>

namespace longreach {

void expect_defined(const at::Tensor& tensor, std::string_view name) {
  check<ShapeError>(tensor.defined(), name, ": a tensor is required, none was given");
}

void expect_shape(const at::Tensor& tensor, std::string_view name, at::IntArrayRef shape) {
  expect_defined(tensor, name);
  bool equal = tensor.dim() == static_cast<int64_t>(shape.size());
  for (size_t i = 0; equal && i < shape.size(); ++i)
    equal = shape[i] == -1 || tensor.size(static_cast<int64_t>(i)) == shape[i];
  check<ShapeError>(equal, name, ": shape ", tensor.sizes(), ", expected ", shape);
}

void expect_dtype(const at::Tensor& tensor, std::string_view name,
                  std::initializer_list<at::ScalarType> allowed) {
  expect_defined(tensor, name);
  std::vector<std::string> names;
  for (const auto dtype : allowed) {
    if (tensor.scalar_type() == dtype) return;
    names.emplace_back(c10::toString(dtype));
  }
  throw DtypeError(
      text(name, ": dtype ", c10::toString(tensor.scalar_type()), ", expected ", join(names, " or ")));
}

void expect_same_device(const at::Tensor& tensor, std::string_view name, const at::Tensor& other,
                        std::string_view other_name) {
  check<ShapeError>(tensor.device() == other.device(), name, ": on ", tensor.device().str(),
                    ", expected the device of ", other_name, ", ", other.device().str());
}

void expect_cu_seqlens(const at::Tensor& cu_seqlens, std::string_view name, int64_t total) {
  expect_dtype(cu_seqlens, name, {at::kInt});
  check<ShapeError>(
      cu_seqlens.dim() == 1 && cu_seqlens.numel() >= 1 && cu_seqlens.is_cpu() && cu_seqlens.is_contiguous(),
      name, ": expected a contiguous vector of N+1 bounds on the CPU, found shape ", cu_seqlens.sizes());
  const int32_t* bounds = cu_seqlens.const_data_ptr<int32_t>();
  const int64_t last = cu_seqlens.numel() - 1;
  check<ShapeError>(bounds[0] == 0 && bounds[last] == total, name, ": runs from ", bounds[0], " to ",
                    bounds[last], ", expected from 0 to ", total);
  for (int64_t i = 0; i < last; ++i)
    check<ShapeError>(bounds[i] <= bounds[i + 1], name, ": falls from ", bounds[i], " to ", bounds[i + 1],
                      " at ", i + 1);
}

void expect_packed(const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k, int64_t batch,
                   int64_t queries, int64_t keys) {
  if (!cu_seqlens_q.defined() && !cu_seqlens_k.defined()) return;
  expect_defined(cu_seqlens_q, "cu_seqlens_q (cu_seqlens_k is given)");
  expect_defined(cu_seqlens_k, "cu_seqlens_k (cu_seqlens_q is given)");
  check<ShapeError>(batch == 1, "q: ", batch, " batch entries, expected 1 with cu_seqlens");
  expect_cu_seqlens(cu_seqlens_q, "cu_seqlens_q", queries);
  expect_cu_seqlens(cu_seqlens_k, "cu_seqlens_k", keys);
  expect_shape(cu_seqlens_k, "cu_seqlens_k", cu_seqlens_q.sizes());
}

void expect_attention_inputs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  constexpr int64_t kMaxQk = 256, kMaxV = 512;
  expect_shape(q, "q", {-1, -1, -1, -1});
  const int64_t batch = q.size(0), heads = q.size(2), size = q.size(3);
  expect_shape(k, "k", {batch, -1, -1, size});
  expect_shape(v, "v", {batch, k.size(1), -1, -1});
  expect_dtype(k, "k", {q.scalar_type()});
  expect_dtype(v, "v", {q.scalar_type()});
  expect_same_device(k, "k", q, "q");
  expect_same_device(v, "v", q, "q");
  check<ShapeError>(heads >= 1, "q: 0 heads, expected at least 1");
  check<ShapeError>(size >= 1 && size <= kMaxQk, "q: head dimension ", size, ", expected 1 to ", kMaxQk);
  check<ShapeError>(v.size(3) >= 1 && v.size(3) <= kMaxV, "v: head dimension ", v.size(3), ", expected 1 to ",
                    kMaxV);
  check<ShapeError>(k.size(2) >= 1 && heads % k.size(2) == 0, "k: ", k.size(2),
                    " heads, expected a divisor of ", heads);
  check<ShapeError>(v.size(2) >= 1 && heads % v.size(2) == 0, "v: ", v.size(2),
                    " heads, expected a divisor of ", heads);
  check<ShapeError>(k.size(1) <= std::numeric_limits<int32_t>::max() - 64, "k: ", k.size(1),
                    " tokens, expected fewer than 2^31 - 64");
}

}  // namespace longreach
