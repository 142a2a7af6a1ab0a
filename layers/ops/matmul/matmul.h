// The products of linear layers, through the library that is faster on this processor: LibTorch holds two.
// Few rows go through our own kernel, which keeps up with memory where both fall behind it. MKL chooses its
// code by the vendor of the CPU and reaches about 75 % of the peak of AMD's with AVX-512 in float32, oneDNN
// about 95 % (`longreach bench train` measures both). bfloat16 goes to oneDNN on every CPU by LibTorch's own
// choice.
#pragma once
#include <ATen/core/Tensor.h>

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace longreach {

// Who multiplies float32 matrices: LibTorch's own choice (MKL on x86-64), or oneDNN. Both sum in float32, in
// another order.
enum class MatmulLibrary { kDefault, kOneDnn };

std::string_view name_of(MatmulLibrary library);  // "default", "onednn"
// Throws ConfigError for another name, and for "onednn" where it cannot be had (see onednn_matmul_available).
MatmulLibrary matmul_library_named(const std::string& name);

// Whether LibTorch has oneDNN and this CPU has what its door asks for (AVX-512).
bool onednn_matmul_available();
// By the vendor and the instruction sets of this CPU.
MatmulLibrary fastest_matmul_library();

// What this process uses, LibTorch's default at first; `longreach train` sets it. Set it before the first
// product, as the number of threads: the bits of a run depend on it. A program that sets oneDNN must take
// signals on a thread that does not multiply, or on an alternate stack: oneDNN's float32 kernels keep the
// stack pointer in memory of the heap, where the frame of a signal's handler overwrites what lies beside it.
MatmulLibrary matmul_library();
void set_matmul_library(MatmulLibrary library);

// Whether the products of x go elsewhere than at::linear sends them.
bool chooses_matmul_library(const at::Tensor& x);

// a [M, K], b [K, N] of one dtype and any strides -> [M, N]. No gradient is recorded.
at::Tensor matrix_product(const at::Tensor& a, const at::Tensor& b);

// Whether x [..., in] on the CPU has so few rows (4 at most: tokens being decoded) that our own kernel reads
// the weight [out, in], dense and of the dtype of x, float32 or bfloat16, faster than a library does.
bool has_few_rows(const at::Tensor& x, const at::Tensor& weight);

// The products of x with weights of which each has_few_rows, [..., out] each, in one round of the threads:
// the same as linear_product's. No gradient is recorded.
std::vector<at::Tensor> few_rows_products(const at::Tensor& x, std::span<const at::Tensor> weights);

// x [..., in], weight [out, in] of one dtype -> x weight^T [..., out], with all derivatives. A weight that
// wants no gradient may have another dtype: it is brought to that of x for each product, and not kept so
// between them. `wide`: float32 from bfloat16, to which sums of few rows are not even rounded.
at::Tensor linear_product(const at::Tensor& x, const at::Tensor& weight, bool wide = false);

}  // namespace longreach
