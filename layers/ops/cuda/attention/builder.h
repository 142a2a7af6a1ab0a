// What the launch plans of attention operators have in common: work space, launches, rows in memory, and the
// kernels over rows (rows.cuh) that go before and after those of attention.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "layers/ops/cuda/attention/head_dims.h"
#include "layers/ops/cuda/attention/params.h"
#include "layers/ops/cuda/launch.h"
#include "layers/ops/document.h"
#include "layers/ops/dtype.h"
#include "layers/ops/strided.h"

namespace longreach::cuda::attention {

int element_bytes(DType dtype);
// "bf16", as in the names of kernels. Throws DtypeError for other dtypes.
const char* dtype_name(DType dtype);

// "what_bf16_64_64".
std::string kernel_name(const std::string& what, DType dtype, const HeadDims& dims);

// The smallest of `built` that serves these sizes. Throws ShapeError naming those that are built.
HeadDims smallest_head_dims(std::span<const HeadDims> built, DType dtype, int64_t qk, int64_t v);
std::string head_dims_text(std::span<const HeadDims> built);

// The softmax needs a rising function of raw scores: the sign goes into q, and a scale of zero is the
// smallest that leaves masked scores at -inf.
void make_scale_positive(float& scale_log2, int32_t& negate);

// What row_terms (rows.cuh) reads, of [batches, heads, queries].
struct RowTermsInput {
  Strided o, d_o;
  const float *lse, *d_lse;
  int64_t heads, queries, v_size;
};

// Hands out work space and collects launches; with no work space the pointers are offsets from null.
class PlanBuilder {
 public:
  // `prefix`: of the names of the operator's kernels.
  PlanBuilder(std::string prefix, DType dtype, int64_t batches, void* workspace)
      : prefix_(std::move(prefix)),
        dtype_(dtype),
        batches_(batches),
        workspace_(reinterpret_cast<uintptr_t>(workspace)) {}

  // Tables come first, before any other part of the work space.
  template <class T>
  const T* table(const std::vector<T>& entries) {
    const auto* bytes = reinterpret_cast<const std::byte*>(entries.data());
    const size_t offset = plan_.upload.size();
    plan_.upload.insert(plan_.upload.end(), bytes, bytes + entries.size() * sizeof(T));
    plan_.workspace_bytes = plan_.upload.size();
    return at<T>(offset);
  }

  template <class T>
  T* allocate(int64_t count) {
    const size_t offset = (plan_.workspace_bytes + 255) / 256 * 256;
    plan_.workspace_bytes = offset + static_cast<size_t>(count) * sizeof(T);
    return at<T>(offset);
  }

  template <class Parameters>
  void launch(const std::string& kernel, int64_t blocks, int threads, int shared,
              const Parameters& parameters) {
    add(prefix_ + '_' + kernel, blocks, threads, shared, parameters);
  }

  // Rows in memory, as they are.
  CudaRows rows(const Strided& x, int64_t size) const;
  // Inputs of the attention kernels: rows that start at multiples of 16 bytes, copied where they do not.
  CudaRows aligned_rows(const Strided& x, int64_t tokens, int64_t heads, int64_t size);
  // fp32 rows [batch, token, head, size], each of whole 16 bytes.
  CudaRows float_rows(int64_t tokens, int64_t heads, int64_t size);

  // A kernel over rows of the operator's own.
  template <class Parameters>
  void launch_rows(const std::string& kernel, int64_t rows, const Parameters& parameters) {
    launch(kernel, ceil_div(rows, kRowThreads / 32), kRowThreads, 0, parameters);
  }
  // A kernel of rows.cuh.
  template <class Parameters>
  void launch_shared_rows(const std::string& kernel, int64_t rows, int64_t rows_a_warp,
                          const Parameters& parameters) {
    add("attention_rows_" + kernel, ceil_div(rows, rows_a_warp * (kRowThreads / 32)), kRowThreads, 0,
        parameters);
  }
  // Writes the terms of all queries.
  CudaTerms* row_terms(const RowTermsInput& input);

  DType dtype() const { return dtype_; }
  int64_t batches() const { return batches_; }
  Plan finish() { return std::move(plan_); }

 private:
  // By address: without work space this is an offset, not a pointer into anything.
  template <class T>
  T* at(size_t offset) const {
    return reinterpret_cast<T*>(workspace_ + offset);
  }
  template <class Parameters>
  void add(std::string kernel, int64_t blocks, int threads, int shared, const Parameters& parameters) {
    if (blocks == 0) return;
    check_blocks(kernel, blocks);
    plan_.launches.push_back(cuda::make_launch(std::move(kernel), {static_cast<uint32_t>(blocks), 1, 1},
                                               {static_cast<uint32_t>(threads), 1, 1},
                                               static_cast<uint32_t>(shared), parameters));
  }
  static void check_blocks(const std::string& kernel, int64_t blocks);

  std::string prefix_;
  DType dtype_;
  int64_t batches_;
  uintptr_t workspace_;
  Plan plan_;
};

// One of dk and dv [batches, keys, heads, size]: summed from fp32 parts where the kernel's `groups` of heads
// are more than its heads.
class HeadParts {
 public:
  HeadParts(PlanBuilder& builder, const Strided& out, int64_t keys, int64_t groups, int64_t heads,
            int64_t size);

  CudaRows target;  // what the attention kernel writes
  void add_up(PlanBuilder& builder) const;

 private:
  CudaSumHeads sum_;
  bool needed_;
};

}  // namespace longreach::cuda::attention
