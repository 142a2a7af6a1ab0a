// A small launch of block attention for the mutation gate, against plain float64 formulas: no torch. More
// than one tile of keys and of columns, holes in the lists, a short last row, two heads on one list and one
// key head.
#pragma once
#include <algorithm>

#include "layers/ops/block_attention/cuda/plan.h"
#include "tests/layers/ops/cuda/kernel_cases.h"

namespace longreach::test {

inline std::string block_file_of(const std::string& kernel) {
  if (kernel.starts_with("attention_rows")) return "attention_rows";
  if (kernel.starts_with("interval_attention_rows")) return "interval_attention_rows";
  if (kernel.starts_with("block_attention_transpose")) return "block_attention_transpose";
  for (const char* stem : {"forward", "query_gradient", "key_gradient", "statistics"})
    if (kernel.starts_with(text("block_attention_", stem))) return text("block_attention_", stem, "_bf16");
  return kernel;
}

class BlockLaunch {
 public:
  BlockLaunch(int64_t tokens, int64_t query_block, int64_t key_block)
      : query_block_(query_block),
        key_block_(key_block),
        document_{0, tokens, 0, tokens, 0, ceil_div(tokens, query_block)},
        q_(tokens, kHeads, kSize, 1),
        k_(tokens, 1, kSize, 2),
        v_(tokens, 1, kSize, 3),
        d_o_(tokens, kHeads, kSize, 4),
        o_(q_),
        dq_(q_),
        dk_(k_),
        dv_(v_),
        lse_(static_cast<size_t>(tokens * kHeads)) {
    for (int64_t row = 0; row < document_.rows; ++row) {
      const auto own = static_cast<int32_t>(std::min((row + 1) * query_block, tokens) - 1) /
                       static_cast<int32_t>(key_block);
      // The diagonal, a hole, one between, the first.
      const int32_t between = own / 2;
      const int32_t entries[kSlots] = {own, -1, between < own && between > 0 ? between : -1,
                                       own > 0 ? 0 : -1};
      indices_.insert(indices_.end(), entries, entries + kSlots);
    }
    block_max_.resize(indices_.size());
    block_sum_.resize(indices_.size());
    for (int64_t h = 0; h < kHeads; ++h)
      for (int64_t i = 0; i < tokens; ++i) solve(h, i);
  }

  // o and the statistics.
  Outcome forward(const Kernels& kernels) const {
    Outcome outcome;
    ptx::Memory memory;
    block::Params p = params(memory);
    p.o = rows(memory.allocate("o", o_.values.size() * 2), q_);
    p.lse = memory.allocate_array<float>("lse", lse_.size());
    p.per_list = true;
    p.block_max = memory.allocate_array<float>("block_max", indices_.size());
    p.block_sum = memory.allocate_array<float>("block_sum", indices_.size());
    launch(outcome, kernels, memory, [&](void* space) { return block::plan_forward(p, space); });
    compare(outcome, memory, p.o.data, DType::kBFloat16, o_.values);
    const auto floats = [&](const float* data, const std::vector<double>& exact) {
      compare(
          outcome, [&] { return memory.download(data, exact.size()); }, exact);
    };
    floats(p.block_max, block_max_);
    floats(p.block_sum, block_sum_);
    return outcome;
  }

  Outcome backward(const Kernels& kernels) const {
    Outcome outcome;
    ptx::Memory memory;
    block::Params p = params(memory);
    std::vector<uint16_t> o;
    for (const double x : o_.values) o.push_back(ptx::to_bfloat(static_cast<float>(x)).bits);
    p.o = rows(memory.upload("o", o), q_);
    p.lse = memory.upload("lse", lse_);
    block::Gradients g{};
    g.d_o = rows(memory.upload("d_o", d_o_.bytes), q_);
    g.dq = rows(memory.allocate("dq", dq_.values.size() * 2), q_);
    g.dk = rows(memory.allocate("dk", dk_.values.size() * 2), k_);
    g.dv = rows(memory.allocate("dv", dv_.values.size() * 2), v_);
    launch(outcome, kernels, memory, [&](void* space) { return block::plan_backward(p, g, space); });
    compare(outcome, memory, g.dq.data, DType::kBFloat16, dq_.values);
    compare(outcome, memory, g.dk.data, DType::kBFloat16, dk_.values);
    compare(outcome, memory, g.dv.data, DType::kBFloat16, dv_.values);
    return outcome;
  }

 private:
  static constexpr int64_t kHeads = 2, kSize = 64, kSlots = 4;
  static constexpr double kScale = 0.125;

  void solve(int64_t h, int64_t i) {
    const size_t first = static_cast<size_t>(i / query_block_ * kSlots);
    std::vector<int64_t> seen;
    std::vector<size_t> entry;  // of each seen key
    for (size_t slot = first; slot < first + kSlots; ++slot)
      for (int64_t j = indices_[slot] * key_block_;
           indices_[slot] >= 0 && j < std::min((indices_[slot] + 1) * key_block_, i + 1); ++j) {
        seen.push_back(j);
        entry.push_back(slot);
      }
    std::vector<double> p(seen.size()), dp(seen.size());
    double sum = 0, delta = 0;
    for (size_t n = 0; n < seen.size(); ++n) sum += p[n] = std::exp(kScale * dot(q_, i, h, k_, seen[n], 0));
    lse_[static_cast<size_t>(h * q_.tokens + i)] = static_cast<float>(std::log(sum));
    for (size_t n = 0; n < seen.size(); ++n) {
      p[n] /= sum;
      dp[n] = dot(d_o_, i, h, v_, seen[n], 0);
      delta += p[n] * dp[n];
      o_.add(i, h, p[n], v_, seen[n], 0);
      dv_.add(seen[n], 0, p[n], d_o_, i, h);
      block_max_[entry[n]] = std::max(block_max_[entry[n]], p[n]);
      block_sum_[entry[n]] += p[n];
    }
    for (size_t n = 0; n < seen.size(); ++n) {
      const double ds = kScale * p[n] * (dp[n] - delta);
      dq_.add(i, h, ds, k_, seen[n], 0);
      dk_.add(seen[n], 0, ds, q_, i, h);
    }
  }

  static Strided rows(void* data, const Rows& like) {
    return {data, like.tokens * like.heads * like.size, like.heads * like.size, like.size};
  }

  block::Params params(ptx::Memory& memory) const {
    block::Params p{};
    p.dtype = DType::kBFloat16;
    p.batches = 1, p.queries = p.keys = q_.tokens, p.heads = kHeads;
    p.key_heads = p.value_heads = 1, p.qk_size = p.v_size = kSize;
    p.scale = kScale;
    p.causal = true;
    p.q = rows(memory.upload("q", q_.bytes), q_);
    p.k = rows(memory.upload("k", k_.bytes), k_);
    p.v = rows(memory.upload("v", v_.bytes), v_);
    p.query_block = query_block_, p.key_block = key_block_;
    p.indices = memory.upload("indices", indices_);
    p.list_batches = p.list_heads = 1, p.rows = document_.rows, p.slots = kSlots;
    p.documents = &document_, p.document_count = 1;
    return p;
  }

  template <class Plan>
  static void launch(Outcome& outcome, const Kernels& kernels, ptx::Memory& memory, Plan plan) {
    void* space = memory.allocate("workspace", plan(nullptr).workspace_bytes);
    launch_all(outcome, kernels, plan(space).launches, memory);
  }

  int64_t query_block_, key_block_;
  PackedDocument document_;
  Rows q_, k_, v_, d_o_;
  Exact o_, dq_, dk_, dv_;
  std::vector<float> lse_;
  std::vector<int32_t> indices_;
  std::vector<double> block_max_, block_sum_;
};

}  // namespace longreach::test
