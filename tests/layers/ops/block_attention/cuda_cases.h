// Runs the launch plans of block attention on the PTX interpreter, with inputs in any layout and outputs that
// begin uninitialised, and compares with the float64 reference.
#pragma once
#include <algorithm>
#include <random>

#include "layers/ops/block_attention/block_attention.h"
#include "layers/ops/block_attention/cuda/plan.h"
#include "layers/ops/common/packed_documents.h"
#include "tests/layers/ops/interval_attention/cuda_cases.h"

namespace longreach::test {

struct BlockCudaCase {
  int64_t batch = 1, queries = 65, keys = 65, heads = 2, key_heads = 1, value_heads = 1, qk_size = 64,
          v_size = 64;
  int64_t list_batches = 1, list_heads = 1;
  int64_t query_block = 64, key_block = 64;
  bool causal = true;
  std::vector<int32_t> q_bounds, k_bounds;  // packed documents
  double density = 0.5;                     // of the blocks that rows list, the first one among them
  double magnitude = 1.0;                   // of q
  std::optional<double> scale;
  BlockStatistics statistics = BlockStatistics::none;
  uint64_t seed = 1;
  std::optional<int64_t> nan_key;  // whose k is NaN

  std::string name() const {
    return text("B", batch, " Tq", queries, " Tk", keys, " H", heads, '/', key_heads, '/', value_heads,
                " lists ", list_batches, 'x', list_heads, " D", qk_size, '/', v_size, " blocks ", query_block,
                'x', key_block, " causal", causal, q_bounds.empty() ? "" : " packed", " seed", seed);
  }
};

// Random lists in random order: holes, rows without a block, and numbers beyond the document among them.
inline BlockLists random_lists(const BlockCudaCase& c) {
  BlockLists lists{.query_block = c.query_block, .key_block = c.key_block, .causal = c.causal};
  if (!c.q_bounds.empty()) {
    const auto count = static_cast<int64_t>(c.q_bounds.size());
    lists.cu_seqlens_q = int_tensor(c.q_bounds, {count});
    lists.cu_seqlens_k = int_tensor(c.k_bounds, {count});
  }
  const auto documents =
      packed_documents(lists.cu_seqlens_q, lists.cu_seqlens_k, c.queries, c.keys, c.query_block);
  const int64_t most = most_blocks(documents, c.key_block);
  const int64_t slots = std::max<int64_t>(static_cast<int64_t>(c.density * static_cast<double>(most)) + 3, 1);
  std::mt19937_64 random(c.seed);
  std::vector<int32_t> entries;
  for (int64_t list = 0; list < c.list_batches * c.list_heads; ++list)
    for (const PackedDocument& d : documents)
      for (int64_t row = 0; row < d.rows; ++row) {
        std::vector<int32_t> blocks, chosen{0, -1};
        for (int64_t b = 1; b < d.blocks(c.key_block) + 1; ++b) blocks.push_back(static_cast<int32_t>(b));
        std::shuffle(blocks.begin(), blocks.end(), random);
        chosen.insert(chosen.end(), blocks.begin(), blocks.end());
        if (random() % 8 == 0) chosen.clear();
        chosen.resize(static_cast<size_t>(slots), -1);
        std::shuffle(chosen.begin(), chosen.end(), random);
        if (random() % 4 == 0) std::replace(chosen.begin(), chosen.end(), -1, 2000000000);
        entries.insert(entries.end(), chosen.begin(), chosen.end());
      }
  const int64_t rows = row_count(documents);
  lists.indices = int_tensor(entries, {c.list_batches, c.list_heads, rows, slots});
  return lists;
}

struct BlockCudaInputs {
  at::Tensor q, k, v, d_o, d_lse;

  BlockCudaInputs(const BlockCudaCase& c, at::ScalarType dtype) {
    const auto input = [&](at::IntArrayRef shape, uint64_t salt, double magnitude) {
      return (normal(shape, c.seed * 16 + salt) * magnitude).to(dtype);
    };
    q = input({c.batch, c.queries, c.heads, c.qk_size}, 0, c.magnitude);
    k = input({c.batch, c.keys, c.key_heads, c.qk_size}, 1, 1.0);
    v = input({c.batch, c.keys, c.value_heads, c.v_size}, 2, 1.0);
    d_o = input({c.batch, c.queries, c.heads, c.v_size}, 3, 1.0);
    d_lse = input({c.batch, c.heads, c.queries}, 4, 1.0).to(at::kFloat);
    if (c.nan_key) k.select(1, *c.nan_key).fill_(std::nan(""));
  }
};

inline AttentionResult exact_block_attention(const BlockCudaCase& c, const BlockLists& lists,
                                             const BlockCudaInputs& in) {
  const auto leaf = [](const at::Tensor& x) { return x.to(at::kDouble).requires_grad_(); };
  const at::Tensor q = leaf(in.q), k = leaf(in.k), v = leaf(in.v);
  const BlockAttentionOutput out =
      block_attention_reference(q, k, v, lists, {.scale = c.scale, .statistics = c.statistics});
  const at::Tensor nothing = out.lse.detach().isinf();
  const auto grads =
      torch::autograd::grad({out.o, out.lse}, {q, k, v},
                            {in.d_o.to(at::kDouble), in.d_lse.to(at::kDouble).masked_fill(nothing, 0.0)},
                            std::nullopt, false, true);
  AttentionResult result{out.o.detach(), out.lse.detach().masked_fill(nothing, 0.0)};
  const at::Tensor leaves[] = {q, k, v};
  for (size_t i = 0; i < grads.size(); ++i)
    result.push_back(grads[i].defined() ? grads[i] : at::Tensor(leaves[i].detach() * 0.0));
  if (c.statistics != BlockStatistics::none) {
    result.push_back(out.block_max);
    result.push_back(out.block_sum);
  }
  return result;
}

// The sizes, lists and documents of a case; `documents` is kept by the caller.
inline block::Params block_params(const BlockCudaCase& c, const BlockLists& lists, at::ScalarType dtype,
                                  const std::vector<PackedDocument>& documents, CudaMemory& device) {
  block::Params p{};
  p.dtype = kernel_dtype(dtype);
  p.batches = c.batch, p.queries = c.queries, p.keys = c.keys, p.heads = c.heads;
  p.key_heads = c.key_heads, p.value_heads = c.value_heads, p.qk_size = c.qk_size, p.v_size = c.v_size;
  p.scale = static_cast<float>(c.scale.value_or(1.0 / std::sqrt(static_cast<double>(c.qk_size))));
  p.causal = c.causal, p.query_block = c.query_block, p.key_block = c.key_block;
  const auto* entries = lists.indices.const_data_ptr<int32_t>();
  p.indices = device.memory.upload("indices", std::vector<int32_t>(entries, entries + lists.indices.numel()));
  p.list_batches = c.list_batches, p.list_heads = c.list_heads;
  p.rows = lists.indices.size(2), p.slots = lists.indices.size(3);
  p.documents = documents.data();
  p.document_count = static_cast<int64_t>(documents.size());
  p.per_list = c.statistics == BlockStatistics::per_list;
  return p;
}

struct BlockCudaResult {
  AttentionResult tensors;    // as AttentionResult, -inf of lse as 0
  at::Tensor minus_infinity;  // where lse is
  std::vector<ptx::Report> reports;
};

inline BlockCudaResult run_block_cuda(const BlockCudaCase& c, const BlockLists& lists, at::ScalarType dtype,
                                      const CudaRun& how = {}) {
  CudaMemory device;
  const BlockCudaInputs in(c, dtype);
  const auto documents =
      packed_documents(lists.cu_seqlens_q, lists.cu_seqlens_k, c.queries, c.keys, c.query_block);
  block::Params p = block_params(c, lists, dtype, documents, device);
  p.q = device.upload("q", in.q, how.layout);
  p.k = device.upload("k", in.k, how.layout);
  p.v = device.upload("v", in.v, how.layout);
  p.o = device.allocate("o", in.d_o.sizes(), dtype);
  p.lse = device.memory.allocate_array<float>("lse", static_cast<size_t>(in.d_lse.numel()));
  const std::vector<int64_t> statistics{c.batch, p.per_list ? c.list_heads : c.heads, p.rows, p.slots};
  if (c.statistics != BlockStatistics::none)
    for (float** part : {&p.block_max, &p.block_sum})
      *part = device.memory.allocate_array<float>(
          "statistics", static_cast<size_t>(statistics[0] * statistics[1] * statistics[2] * statistics[3]));
  BlockCudaResult result;
  device.launch([&](void* workspace) { return block::plan_forward(p, workspace); }, how, result.reports);
  const at::Tensor lse = device.download(p.lse, in.d_lse.sizes(), at::kFloat);
  result.minus_infinity = lse.isneginf();
  result.tensors = {device.download(p.o.data, in.d_o.sizes(), dtype),
                    lse.masked_fill(result.minus_infinity, 0.0)};
  block::Gradients g{};
  g.d_o = device.upload("d_o", in.d_o, how.layout);
  g.d_lse = device.memory.upload("d_lse", std::span<const float>(in.d_lse.const_data_ptr<float>(),
                                                                 static_cast<size_t>(in.d_lse.numel())));
  g.dq = device.allocate("dq", in.q.sizes(), dtype);
  g.dk = device.allocate("dk", in.k.sizes(), dtype);
  g.dv = device.allocate("dv", in.v.sizes(), dtype);
  device.launch([&](void* workspace) { return block::plan_backward(p, g, workspace); }, how, result.reports);
  result.tensors.push_back(device.download(g.dq.data, in.q.sizes(), dtype));
  result.tensors.push_back(device.download(g.dk.data, in.k.sizes(), dtype));
  result.tensors.push_back(device.download(g.dv.data, in.v.sizes(), dtype));
  if (c.statistics != BlockStatistics::none)
    for (const float* part : {p.block_max, p.block_sum})
      result.tensors.push_back(device.download(part, statistics, at::kFloat));
  return result;
}

// RMS errors as those of interval attention; the statistics are fp32 sums of weights that are never rounded.
inline void expect_block_cuda_matches(const BlockCudaCase& c, at::ScalarType dtype, const CudaRun& how = {}) {
  SCOPED_TRACE(text(c.name(), " dtype ", at::toString(dtype), " layout ", static_cast<int>(how.layout)));
  const double limit = dtype == at::kFloat ? 1e-5 : dtype == at::kHalf ? 2e-3 : 1e-2;
  const BlockLists lists = random_lists(c);
  const AttentionResult exact = exact_block_attention(c, lists, BlockCudaInputs(c, dtype));
  const BlockCudaResult found = run_block_cuda(c, lists, dtype, how);
  ASSERT_EQ(found.tensors.size(), exact.size());
  const char* names[] = {"o", "lse", "dq", "dk", "dv", "block_max", "block_sum"};
  for (size_t i = 0; i < exact.size(); ++i) {
    ASSERT_EQ(found.tensors[i].sizes(), exact[i].sizes()) << names[i];
    if (exact[i].numel() == 0) continue;
    if (exact[i].abs().max().item<double>() == 0.0) {
      EXPECT_EQ(found.tensors[i].abs().max().item<double>(), 0.0) << names[i];
      continue;
    }
    EXPECT_LE(relative_error(found.tensors[i], exact[i]), i < 5 ? limit : 5e-5) << names[i];
  }
}

}  // namespace longreach::test
