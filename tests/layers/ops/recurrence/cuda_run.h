// Runs the launch plans of the CUDA recurrence in the PTX interpreter: tensors in, tensors out.
#pragma once
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>

#include <cstring>

#include "layers/ops/recurrence/cuda/plan.h"
#include "tests/layers/ops/recurrence/cases.h"
#include "tests/ptx/interpreter/interpreter.h"

namespace longreach::test {

inline DType kernel_dtype(at::ScalarType dtype) {
  if (dtype == at::kFloat) return DType::kFloat32;
  return dtype == at::kBFloat16 ? DType::kBFloat16 : DType::kFloat16;
}

// Global memory, the kernels, and what their runs reported.
class CudaRun {
 public:
  explicit CudaRun(ptx::Options options = {}) : options_(options) {}

  // Elements `gap` apart beyond each head, `offset` elements into the buffer; only the tensor's own are
  // written.
  struct Placement {
    int64_t gap = 0, offset = 0;
  };
  Strided place(const char* name, const at::Tensor& x, Placement p) {
    const int64_t rows = x.numel() / std::max<int64_t>(x.size(3), 1), pitch = x.size(3) + p.gap,
                  bytes = x.element_size();
    auto* data = static_cast<std::byte*>(memory_.allocate(name, (rows * pitch + p.offset + 1) * bytes)) +
                 p.offset * bytes;
    return {data, x.size(1) * x.size(2) * pitch, x.size(2) * pitch, pitch};
  }
  Strided upload(const char* name, const at::Tensor& x, Placement p) {
    const Strided view = place(name, x, p);
    const int64_t width = x.size(3) * x.element_size(), rows = width == 0 ? 0 : x.numel() / x.size(3);
    const at::Tensor dense = x.contiguous();
    for (int64_t r = 0; r < rows; ++r) {
      auto* to = static_cast<std::byte*>(view.data) + r * view.head * x.element_size();
      std::memcpy(to, static_cast<const std::byte*>(dense.const_data_ptr()) + r * width, width);
      memory_.mark_written(to, width);
    }
    return view;
  }
  // A tensor of the shape and dtype of `like`; throws where an element was not written.
  at::Tensor download(const Strided& view, const at::Tensor& like) {
    at::Tensor x = at::empty(like.sizes(), like.options());
    const int64_t width = x.size(3) * x.element_size(), rows = width == 0 ? 0 : x.numel() / x.size(3);
    for (int64_t r = 0; r < rows; ++r) {
      const auto* from = static_cast<const std::byte*>(view.data) + r * view.head * x.element_size();
      memory_.require_written(from, width);
      std::memcpy(static_cast<std::byte*>(x.mutable_data_ptr()) + r * width, from, width);
    }
    return x;
  }

  template <class T>
  T* array(const char* name, const at::Tensor& x) {
    if (!x.defined()) return nullptr;
    const at::Tensor dense = x.contiguous();
    return memory_.upload(name, std::span<const T>(dense.const_data_ptr<T>(), dense.numel()));
  }
  template <class T>
  T* array(const char* name, int64_t count) {
    return memory_.allocate_array<T>(name, static_cast<size_t>(count));
  }
  template <class T>
  at::Tensor download(const T* data, at::IntArrayRef shape) {
    at::Tensor x = at::empty(shape, c10::CppTypeToScalarType<T>::value);
    const std::vector<T> values = memory_.download(data, static_cast<size_t>(x.numel()));
    if (!values.empty()) std::memcpy(x.mutable_data_ptr(), values.data(), values.size() * sizeof(T));
    return x;
  }
  ptx::Memory& memory() { return memory_; }

  void launch(const std::vector<cuda::Launch>& plan) {
    for (const cuda::Launch& launch : plan) {
      const ptx::Report report = ptx::run(module_of(launch.kernel), launch, memory_, options_);
      EXPECT_TRUE(report.errors.empty()) << report.text();
      reports_.push_back(report);
    }
  }
  const std::vector<ptx::Report>& reports() const { return reports_; }

 private:
  static const ptx::Module& module_of(const std::string& kernel) {
    static const ptx::Module outputs = ptx::load_kernels("recurrence_outputs"),
                             states = ptx::load_kernels("recurrence_states"),
                             step = ptx::load_kernels("recurrence_step");
    if (kernel.starts_with("recurrence_output") || kernel.starts_with("recurrence_grad_")) return outputs;
    return kernel.starts_with("recurrence_step") ? step : states;
  }

  ptx::Options options_;
  ptx::Memory memory_;
  std::vector<ptx::Report> reports_;
};

// Shape and sequences of a case.
struct CudaShape {
  recurrence_cuda::Shape shape;
  std::vector<recurrence_cuda::Sequence> sequences;

  CudaShape(const RecurrenceCase& c, at::ScalarType dtype) {
    shape.heads = c.heads, shape.key_heads = c.key_heads, shape.value_heads = c.value_heads;
    shape.dk = c.dk, shape.dv = c.dv, shape.chunk = shape.segment = recurrence_cuda::kChunk;
    shape.scale = 0.5f;
    shape.dtype = kernel_dtype(dtype);
    if (c.bounds.empty())
      for (int64_t b = 0; b < c.batch; ++b) sequences.push_back({b, 0, c.tokens, 0});
    else
      for (size_t n = 0; n + 1 < c.bounds.size(); ++n)
        sequences.push_back({0, c.bounds[n], c.bounds[n + 1] - c.bounds[n], 0});
    shape.sequences = sequences.data();
    shape.sequence_count = static_cast<int64_t>(sequences.size());
    shape.segment_count = recurrence_cuda::count_chunks(shape);
  }
  CudaShape(const CudaShape&) = delete;
};

// As run() of cases.h: o, final_state and the gradients of every input that is there. Without `keep`, the
// backward pass computes the states again.
inline Named run_cuda(const RecurrenceCase& c, const RecurrenceInputs& x, CudaRun& gpu,
                      CudaRun::Placement placement = {}, bool keep = true) {
  namespace rc = recurrence_cuda;
  const at::ScalarType dtype = x[0].scalar_type();
  CudaShape s(c, dtype);
  const std::vector<int64_t> states{c.sequences(), c.heads, c.dk, c.dv};
  if (c.decay != DecayKind::kNone) {
    s.shape.decay = c.decay == DecayKind::kHead ? rc::Decay::kHead : rc::Decay::kToken;
    s.shape.log_decay = gpu.array<float>("log_decay", x[3]);
    s.shape.decay_row = c.tokens * c.heads, s.shape.decay_token = c.heads, s.shape.decay_head = 1;
  }
  const auto lists = gpu.memory().upload("lists", rc::make_lists(s.shape));
  const auto memory = [&](const char* name, size_t bytes) {
    return rc::DeviceMemory{lists, gpu.memory().allocate(name, bytes)};
  };
  const Strided q = gpu.upload("q", x[0], placement), k = gpu.upload("k", x[1], placement),
                v = gpu.upload("v", x[2], placement), grad = gpu.upload("grad of o", x[5], placement);
  rc::Forward forward{.shape = s.shape, .q = q, .k = k, .v = v, .o = gpu.place("o", x[5], placement)};
  forward.initial_state = gpu.array<float>("initial_state", x[4]);
  forward.final_state = gpu.array<float>("final_state", x[6].numel());
  if (keep)
    forward.checkpoints = gpu.array<float>("checkpoints", rc::checkpoint_bytes(s.shape) / sizeof(float));
  gpu.launch(rc::plan_forward(forward, memory("workspace", rc::forward_workspace_bytes(forward))));
  rc::Backward backward{.shape = s.shape, .q = q, .k = k, .v = v, .grad_o = grad};
  backward.dq = gpu.place("dq", x[0], placement), backward.dk = gpu.place("dk", x[1], placement);
  backward.dv = gpu.place("dv", x[2], placement);
  backward.checkpoints = forward.checkpoints;
  backward.grad_final_state = gpu.array<float>("grad of final_state", x[6]);
  if (c.initial) backward.grad_initial_state = gpu.array<float>("grad of initial_state", x[6].numel());
  if (c.decay == DecayKind::kToken) {
    backward.d_log_decay = gpu.array<float>("grad of log_decay", x[3].numel());
    backward.d_decay_row = c.tokens * c.heads;
  } else if (c.decay == DecayKind::kHead) {
    backward.d_head_decay = gpu.array<double>("grad of log_decay", s.shape.segment_count * c.heads);
  }
  gpu.launch(rc::plan_backward(backward, memory("workspace", rc::backward_workspace_bytes(backward)),
                               forward.initial_state));
  Named results{{"o", gpu.download(forward.o, x[5])},
                {"final_state", gpu.download(forward.final_state, states)},
                {"grad of q", gpu.download(backward.dq, x[0])},
                {"grad of k", gpu.download(backward.dk, x[1])},
                {"grad of v", gpu.download(backward.dv, x[2])}};
  if (c.decay == DecayKind::kToken)
    results.emplace_back("grad of log_decay", gpu.download(backward.d_log_decay, x[3].sizes()));
  if (c.decay == DecayKind::kHead)
    results.emplace_back("grad of log_decay",
                         gpu.download(backward.d_head_decay, {s.shape.segment_count, c.heads}).sum(0));
  if (c.initial)
    results.emplace_back("grad of initial_state", gpu.download(backward.grad_initial_state, states));
  return results;
}

}  // namespace longreach::test
