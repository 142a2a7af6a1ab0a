// Runs the launch plans of interval attention (block attention shares the memory and the launches) on the PTX
// interpreter, with inputs in any layout and outputs that begin uninitialised, and compares with the float64
// reference.
#pragma once
#include <ATen/ops/full.h>
#include <ATen/ops/isneginf.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "layers/ops/interval_attention/cuda/plan.h"
#include "tests/layers/ops/interval_attention/cases.h"
#include "tests/ptx/interpreter/interpreter.h"

namespace longreach::test {

// How q, k, v and dO lie in memory. What lies between their rows is NaN.
enum class Layout {
  kDense,       // [batch, token, head, element]
  kHeadMajor,   // [batch, head, token, element]
  kGaps,        // rows 48 bytes longer than needed
  kMisaligned,  // rows that begin at odd elements
};

struct CudaRun {
  Layout layout = Layout::kDense;
  interval::CudaOptions options;
  // The second of two batch entries lies in an allocation of its own, far from the first
  bool far_apart = false;
  bool backward = true;
  uint64_t schedule = 0;
  bool profile = false;
};

struct CudaResult {
  AttentionResult tensors;    // o, lse (0 in place of -inf), dq, dk, dv; without the backward pass o and lse
  at::Tensor minus_infinity;  // where lse is -inf
  std::vector<ptx::Report> reports;
};

inline const ptx::Module& module_of(const std::string& kernel) {
  static std::map<std::string, ptx::Module> modules;
  std::string name = kernel.starts_with("attention_rows") ? "attention_rows" : "interval_attention_rows";
  for (const char* operation : {"interval_attention", "block_attention"})
    for (const char* kind : {"forward", "decode", "query_gradient", "key_gradient", "statistics"})
      for (const char* dtype : {"bf16", "fp16", "fp32"})
        if (kernel.starts_with(text(operation, '_', kind)) && kernel.find(dtype) != std::string::npos)
          name = text(operation, '_', kind, '_', dtype);
  for (const char* kind : {"forward", "query_gradient", "key_gradient"})
    if (kernel.starts_with(text("interval_attention_dense_", kind)))
      name = text("interval_attention_dense_", kind, "_sm90a");
  if (kernel.starts_with("block_attention_transpose")) name = "block_attention_transpose";
  auto found = modules.find(name);
  if (found == modules.end()) found = modules.emplace(name, ptx::load_kernels(name)).first;
  return found->second;
}

// Device memory and the tensors in it.
class CudaMemory {
 public:
  Strided upload(const char* name, const at::Tensor& x, Layout layout) {
    const int64_t size = x.size(3), bytes = static_cast<int64_t>(x.element_size());
    const int64_t gap = layout == Layout::kGaps         ? 48 / bytes
                        : layout == Layout::kMisaligned ? 3 - size % 2
                                                        : 0;
    const bool head_major = layout == Layout::kHeadMajor;
    const at::Tensor source = head_major ? x.transpose(1, 2) : x;
    at::Tensor storage =
        at::full({source.size(0), source.size(1), source.size(2), size + gap}, std::nan(""), x.options());
    at::Tensor view = storage.narrow(3, gap > 0 ? 1 : 0, size);
    if (layout == Layout::kGaps) view = storage.narrow(3, 0, size);
    view.copy_(source);
    if (head_major) view = view.transpose(1, 2);
    const auto* from = static_cast<const std::byte*>(storage.const_data_ptr());
    const std::vector<std::byte> all(from, from + storage.numel() * bytes);
    std::byte* data = memory.upload(name, all);
    return {data + view.storage_offset() * bytes, view.stride(0), view.stride(1), view.stride(2)};
  }

  // Two batch entries in two buffers, the second so large (above malloc's greatest threshold, 32 MiB) that it
  // is mapped on its own, terabytes from the heap.
  Strided upload_far_apart(const char* name, const at::Tensor& x) {
    std::byte* entries[2];
    for (const int64_t batch : {0, 1}) {
      const at::Tensor part = x.select(0, batch).contiguous();
      const auto bytes = static_cast<size_t>(part.nbytes());
      entries[batch] = static_cast<std::byte*>(memory.allocate(name, batch == 0 ? bytes : 33 << 20));
      std::memcpy(entries[batch], part.const_data_ptr(), bytes);
      memory.mark_written(entries[batch], bytes);
    }
    const int64_t distance = (reinterpret_cast<int64_t>(entries[1]) - reinterpret_cast<int64_t>(entries[0])) /
                             static_cast<int64_t>(x.element_size());
    EXPECT_GT(std::abs(distance), int64_t{1} << 32);
    return {entries[0], distance, x.stride(1), x.stride(2)};
  }

  // Contiguous and uninitialised.
  Strided allocate(const char* name, at::IntArrayRef shape, at::ScalarType dtype) {
    int64_t count = 1;
    for (const int64_t n : shape) count *= n;
    void* data = memory.allocate(name, static_cast<size_t>(count) * at::elementSize(dtype));
    return {data, shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3]};
  }

  at::Tensor download(const void* data, at::IntArrayRef shape, at::ScalarType dtype) {
    at::Tensor x = at::zeros(shape, at::TensorOptions().dtype(dtype));
    const std::vector<std::byte> bytes =
        memory.download(static_cast<const std::byte*>(data), static_cast<size_t>(x.nbytes()));
    if (!bytes.empty()) std::memcpy(x.data_ptr(), bytes.data(), bytes.size());
    return x;
  }

  // Plans twice, as the launcher does: for the size of the work space, then with it.
  template <class Plan>
  void launch(const Plan& plan, const CudaRun& how, std::vector<ptx::Report>& reports) {
    const cuda::Plan sizes = plan(nullptr);
    auto* workspace = static_cast<std::byte*>(memory.allocate("workspace", sizes.workspace_bytes));
    std::copy(sizes.upload.begin(), sizes.upload.end(), workspace);
    memory.mark_written(workspace, sizes.upload.size());
    for (const cuda::Launch& launch : plan(workspace).launches) {
      const bool dense = launch.kernel.find("_dense_") != std::string::npos;  // for sm_90a alone
      EXPECT_LE(launch.shared_bytes, (dense ? 227u : 99u) * 1024) << launch.kernel;
      reports.push_back(ptx::run(module_of(launch.kernel), launch, memory,
                                 {.threads = 1, .schedule = how.schedule, .profile = how.profile}));
      EXPECT_TRUE(reports.back().errors.empty()) << reports.back().text();
    }
  }

  ptx::Memory memory;
};

inline DType kernel_dtype(at::ScalarType dtype) {
  return dtype == at::kFloat ? DType::kFloat32 : dtype == at::kHalf ? DType::kFloat16 : DType::kBFloat16;
}

// The sizes and the mask of a case; pointers come later.
inline interval::Params case_params(const AttentionCase& c, at::ScalarType dtype, CudaMemory& device) {
  interval::Params p{};
  p.dtype = kernel_dtype(dtype);
  p.batches = c.batch, p.queries = c.queries, p.keys = c.keys, p.heads = c.heads;
  p.key_heads = c.key_heads, p.value_heads = c.value_heads, p.qk_size = c.qk_size, p.v_size = c.v_size;
  p.scale = static_cast<float>(c.scale.value_or(1.0 / std::sqrt(static_cast<double>(c.qk_size))));
  p.causal = c.mask.causal, p.window = c.mask.window, p.sinks = c.mask.sinks;
  p.documents = 1;
  const auto ints = [](const at::Tensor& x) {
    const at::Tensor dense = x.contiguous();
    return std::vector<int32_t>(dense.const_data_ptr<int32_t>(),
                                dense.const_data_ptr<int32_t>() + dense.numel());
  };
  if (c.mask.lo.defined()) {
    p.lo = device.memory.upload("lo", ints(c.mask.lo));
    p.hi = device.memory.upload("hi", ints(c.mask.hi));
    p.mask_batches = c.mask.lo.size(0), p.mask_heads = c.mask.lo.size(1);
  }
  if (c.mask.cu_seqlens_q.defined()) {
    p.cu_queries = c.mask.cu_seqlens_q.const_data_ptr<int32_t>();
    p.cu_keys = c.mask.cu_seqlens_k.const_data_ptr<int32_t>();
    p.documents = c.mask.cu_seqlens_q.numel() - 1;
  }
  return p;
}

inline CudaResult run_cuda(const AttentionCase& c, at::ScalarType dtype, const CudaRun& how = {}) {
  CudaMemory device;
  const auto input = [&](at::IntArrayRef shape, uint64_t salt, double magnitude) {
    return (normal(shape, c.seed * 16 + salt) * magnitude).to(dtype);
  };
  interval::Params p = case_params(c, dtype, device);
  const auto upload = [&](const char* name, const at::Tensor& x) {
    return how.far_apart ? device.upload_far_apart(name, x) : device.upload(name, x, how.layout);
  };
  p.q = upload("q", input({c.batch, c.queries, c.heads, c.qk_size}, 0, c.magnitude));
  p.k = upload("k", input({c.batch, c.keys, c.key_heads, c.qk_size}, 1, 1.0));
  p.v = upload("v", input({c.batch, c.keys, c.value_heads, c.v_size}, 2, 1.0));
  const std::vector<int64_t> o_shape{c.batch, c.queries, c.heads, c.v_size},
      lse_shape{c.batch, c.heads, c.queries};
  p.o = device.allocate("o", o_shape, dtype);
  p.lse = device.memory.allocate_array<float>("lse", static_cast<size_t>(c.batch * c.heads * c.queries));
  CudaResult result;
  device.launch([&](void* workspace) { return interval::plan_forward(p, workspace, how.options); }, how,
                result.reports);
  at::Tensor lse = device.download(p.lse, lse_shape, at::kFloat);
  result.minus_infinity = lse.isneginf();
  result.tensors = {device.download(p.o.data, o_shape, dtype), lse.masked_fill(lse.isinf(), 0.0)};
  if (!how.backward) return result;
  interval::Gradients g{};
  g.d_o = device.upload("d_o", input(o_shape, 3, 1.0), how.layout);
  const at::Tensor d_lse = input(lse_shape, 4, 1.0).to(at::kFloat);
  g.d_lse = device.memory.upload(
      "d_lse", std::span<const float>(d_lse.const_data_ptr<float>(), static_cast<size_t>(d_lse.numel())));
  const std::vector<int64_t> q_shape{c.batch, c.queries, c.heads, c.qk_size},
      k_shape{c.batch, c.keys, c.key_heads, c.qk_size}, v_shape{c.batch, c.keys, c.value_heads, c.v_size};
  g.dq = device.allocate("dq", q_shape, dtype);
  g.dk = device.allocate("dk", k_shape, dtype);
  g.dv = device.allocate("dv", v_shape, dtype);
  device.launch([&](void* workspace) { return interval::plan_backward(p, g, workspace, how.options); }, how,
                result.reports);
  result.tensors.push_back(device.download(g.dq.data, q_shape, dtype));
  result.tensors.push_back(device.download(g.dk.data, k_shape, dtype));
  result.tensors.push_back(device.download(g.dv.data, v_shape, dtype));
  return result;
}

// RMS errors against the float64 reference on the same rounded inputs: bf16 has 8 bits, fp16 11, and TF32x3
// about 21 of a mantissa, with two roundings between products.
inline void expect_cuda_matches(const AttentionCase& c, at::ScalarType dtype, const CudaRun& how = {}) {
  SCOPED_TRACE(text(c.name(), " dtype ", at::toString(dtype), " layout ", static_cast<int>(how.layout)));
  const double limit = dtype == at::kFloat ? 1e-5 : dtype == at::kHalf ? 2e-3 : 1e-2;
  const AttentionResult exact = run_attention(c, interval_attention_reference, at::kDouble, dtype);
  const CudaResult found = run_cuda(c, dtype, how);
  const char* names[] = {"o", "lse", "dq", "dk", "dv"};
  for (size_t i = 0; i < found.tensors.size(); ++i) {
    ASSERT_EQ(found.tensors[i].sizes(), exact[i].sizes()) << names[i];
    if (exact[i].numel() == 0) continue;
    if (exact[i].abs().max().item<double>() == 0.0) {
      EXPECT_EQ(found.tensors[i].abs().max().item<double>(), 0.0) << names[i];
      continue;
    }
    EXPECT_LE(relative_error(found.tensors[i], exact[i]), limit) << names[i];
  }
}

}  // namespace longreach::test
