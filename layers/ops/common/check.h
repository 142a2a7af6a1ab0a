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

// Bounds of packed documents for queries and keys, both or neither; B = 1 with them.
void expect_packed(const at::Tensor& cu_seqlens_q, const at::Tensor& cu_seqlens_k, int64_t batch,
                   int64_t queries, int64_t keys);

// What every softmax operator asks of q [B, Tq, H, Dqk], k [B, Tk, HK, Dqk], v [B, Tk, HV, Dv]: one dtype and
// device, HK and HV divide H, Dqk 1..256, Dv 1..512, Tk < 2^31 - 64.
void expect_attention_inputs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

}  // namespace longreach
