// Checks of tensor arguments: the shape comment that runs.
#pragma once
#include <ATen/core/Tensor.h>

#include <initializer_list>
#include <string_view>

#include "core/error.h"

namespace longreach {

// expect_shape(k, "k", {B, T, HK, D}): throws ShapeError naming the argument, its shape and the one expected.
// -1 in `shape` accepts any size.
void expect_shape(const at::Tensor& tensor, std::string_view name, at::IntArrayRef shape);
void expect_defined(const at::Tensor& tensor, std::string_view name);
// Throws DtypeError naming the argument, its dtype and the allowed ones.
void expect_dtype(const at::Tensor& tensor, std::string_view name,
                  std::initializer_list<at::ScalarType> allowed);
void expect_same_device(const at::Tensor& tensor, std::string_view name, const at::Tensor& other,
                        std::string_view other_name);

// cu_seqlens: int32 [N+1] on the CPU, from 0 to total, never falling. Throws ShapeError/DtypeError naming it.
void expect_cu_seqlens(const at::Tensor& cu_seqlens, std::string_view name, int64_t total);

}  // namespace longreach
