// How the fused recurrence cuts sequences into segments; not a public header.
#pragma once
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <vector>

#include "layers/ops/common/kernel_input.h"
#include "layers/ops/document.h"
#include "layers/ops/recurrence/cuda/op.h"
#include "layers/ops/recurrence/kernels.h"
#include "layers/ops/recurrence/recurrence.h"

namespace longreach::recurrence_kernels {

// Below so many independent sequences x heads of the longest length, segments run side by side instead.
// Chosen by shapes alone: the two forms round differently, and bits must not depend on the machine.
inline constexpr int64_t kEnoughTasks = 8;
inline constexpr int64_t kLongestSegment =
    16;  // chunks: bounds the states that a backward task computes again

// Of a float32 tensor, null for none.
inline float* floats(const at::Tensor& x) {
  return x.defined() ? static_cast<float*>(x.mutable_data_ptr()) : nullptr;
}

// Sizes, and the sequences with their segments.
struct Plan {
  Shape shape;
  std::vector<Sequence> sequences;
  int64_t tokens = 0, longest = 0;

  Plan(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& log_decay,
       const at::Tensor& cu_seqlens, const RecurrenceOptions& options) {
    shape.heads = q.size(2), shape.key_heads = k.size(2), shape.value_heads = v.size(2);
    shape.dk = q.size(3), shape.dv = v.size(3);
    shape.chunk = runs_on_cuda(q) ? recurrence_cuda::kCudaChunk : options.chunk;
    const int64_t wanted = ceil_div(8 * shape.dk * shape.dv / (shape.dk + shape.dv), shape.chunk);
    shape.segment =
        runs_on_cuda(q) ? shape.chunk : shape.chunk * std::clamp<int64_t>(wanted, 1, kLongestSegment);
    shape.scale = static_cast<float>(options.scale);
    shape.dtype = kernel_dtype(q);
    set_decay(log_decay);
    const auto add = [&](int64_t row, int64_t first, int64_t count) {
      sequences.push_back({row, first, count, shape.segment_count});
      shape.segment_count += ceil_div(count, shape.segment);
      tokens += count;
      longest = std::max(longest, count);
    };
    if (cu_seqlens.defined()) {
      const int32_t* bounds = cu_seqlens.const_data_ptr<int32_t>();
      for (int64_t n = 0; n + 1 < cu_seqlens.numel(); ++n) add(0, bounds[n], bounds[n + 1] - bounds[n]);
    } else {
      for (int64_t b = 0; b < q.size(0); ++b) add(b, 0, q.size(1));
    }
    shape.sequences = sequences.data();
    shape.sequence_count = static_cast<int64_t>(sequences.size());
  }
  Plan(const Plan&) = delete;

  // Whether segments run side by side when each sequence gives `tasks` independent tasks.
  bool split(int64_t tasks) const {
    return longest > shape.segment && tokens * tasks < longest * kEnoughTasks;
  }

 private:
  void set_decay(const at::Tensor& log_decay) {
    if (!log_decay.defined()) return;
    shape.decay = log_decay.dim() == 1 ? Decay::kHead : Decay::kToken;
    shape.log_decay = log_decay.const_data_ptr<float>();
    shape.decay_head = log_decay.stride(-1);
    if (shape.decay == Decay::kToken)
      shape.decay_row = log_decay.stride(0), shape.decay_token = log_decay.stride(1);
  }
};

}  // namespace longreach::recurrence_kernels
