// Which library multiplies, and the door to oneDNN's.
#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <atomic>

#include "core/error.h"
#include "layers/ops/matmul/matmul.h"

// LibTorch's own caller of oneDNN's matmul primitive: result = alpha mat1 mat2 + beta result, any strides.
// libtorch_cpu exports it; the pinned release's wheel does not carry the header that declares it
// (ATen/native/mkldnn/Matmul.h).
namespace at::native {
void mkldnn_matmul(const Tensor& mat1, const Tensor& mat2, const Tensor& result, float beta, float alpha);
}

namespace longreach {
namespace {

// Below, what oneDNN spends on finding the primitive is more than it gains: one token that is decoded, a
// small gate.
constexpr int64_t kLeastOperations = int64_t{1} << 20;  // multiply-adds

bool has_avx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
  return false;
#endif
}

bool is_amd() {
#if defined(__x86_64__)
  return __builtin_cpu_is("amd");
#else
  return false;
#endif
}

std::atomic<MatmulLibrary>& chosen() {
  static std::atomic<MatmulLibrary> library{MatmulLibrary::kDefault};
  return library;
}

bool takes_onednn(const at::Tensor& a, const at::Tensor& b) {
  return chooses_matmul_library(a) && b.scalar_type() == at::kFloat &&
         a.size(0) * a.size(1) * b.size(1) >= kLeastOperations;
}

}  // namespace

std::string_view name_of(MatmulLibrary library) {
  return library == MatmulLibrary::kOneDnn ? "onednn" : "default";
}

bool onednn_matmul_available() {
  static const bool available = at::globalContext().hasMKLDNN() && has_avx512();
  return available;
}

MatmulLibrary fastest_matmul_library() {
  return is_amd() && onednn_matmul_available() ? MatmulLibrary::kOneDnn : MatmulLibrary::kDefault;
}

MatmulLibrary matmul_library_named(const std::string& name) {
  if (name == "default") return MatmulLibrary::kDefault;
  check<ConfigError>(name == "onednn", "\"", name, "\": expected default or onednn");
  check<ConfigError>(onednn_matmul_available(),
                     "\"onednn\": its float32 products need a CPU with AVX-512 and a LibTorch with oneDNN");
  return MatmulLibrary::kOneDnn;
}

MatmulLibrary matmul_library() { return chosen().load(std::memory_order_relaxed); }

void set_matmul_library(MatmulLibrary library) { chosen().store(library, std::memory_order_relaxed); }

bool chooses_matmul_library(const at::Tensor& x) {
  return matmul_library() == MatmulLibrary::kOneDnn && x.is_cpu() && x.scalar_type() == at::kFloat;
}

at::Tensor matrix_product(const at::Tensor& a, const at::Tensor& b) {
  if (!takes_onednn(a, b)) return at::mm(a, b);
  at::Tensor result = at::empty({a.size(0), b.size(1)}, a.options());
  at::native::mkldnn_matmul(a, b, result, /*beta=*/0.0F, /*alpha=*/1.0F);
  return result;
}

}  // namespace longreach
