// Small launches of the shipped kernels for the mutation gate and counts of traffic, against plain float64 formulas: no torch.
// Each can touch what the faults break: more than one tile, ragged ends, two streamed stages, shared heads.
#pragma once
#include <cmath>
#include <random>

#include "core/error.h"
#include "layers/ops/interval_attention/cuda_plan.h"
#include "layers/ops/recurrence/cuda_plan.h"
#include "tests/ptx/mutation.h"
#include "tests/ptx/types.h"

namespace longreach::test {

using ptx::Kernels;
using ptx::Outcome;

// bf16 values, [tokens, heads, size].
struct Rows {
  int64_t tokens, heads, size;
  std::vector<uint16_t> bits;

  Rows(int64_t tokens, int64_t heads, int64_t size, unsigned seed)
      : tokens(tokens), heads(heads), size(size), bits(static_cast<size_t>(tokens * heads * size)) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (uint16_t& b : bits) b = ptx::to_bfloat(normal(random)).bits;
  }
  double operator()(int64_t token, int64_t head, int64_t i) const {
    return ptx::to_float(ptx::Bfloat{bits[static_cast<size_t>((token * heads + head) * size + i)]});
  }
};

inline double dot(const Rows& a, int64_t i, int64_t head_a, const Rows& b, int64_t j, int64_t head_b) {
  double sum = 0;
  for (int64_t c = 0; c < a.size; ++c) sum += a(i, head_a, c) * b(j, head_b, c);
  return sum;
}

// A float64 array shaped like Rows.
struct Exact {
  int64_t heads, size;
  std::vector<double> values;
  explicit Exact(const Rows& like) : heads(like.heads), size(like.size), values(like.bits.size()) {}
  double* row(int64_t token, int64_t head) { return values.data() + (token * heads + head) * size; }
  // row += factor x(token, head)
  void add(int64_t token, int64_t head, double factor, const Rows& x, int64_t x_token, int64_t x_head) {
    for (int64_t c = 0; c < size; ++c) row(token, head)[c] += factor * x(x_token, x_head, c);
  }
};

// Compares results; what was never written is an error of its own.
inline void compare(Outcome& outcome, const std::function<std::vector<float>()>& download,
                    const std::vector<double>& exact) {
  try {
    const double error = ptx::relative_rms(download(), exact);
    outcome.error = error > outcome.error || std::isnan(error) ? error : outcome.error;
  } catch (const DataError& error) {
    outcome.errors.push_back(error.what());
  }
}

// bf16 results.
inline void compare(Outcome& outcome, const ptx::Memory& memory, const void* data,
                    const std::vector<double>& exact) {
  const auto download = [&] {
    std::vector<float> values;
    for (const uint16_t bits : memory.download(static_cast<const uint16_t*>(data), exact.size()))
      values.push_back(ptx::to_float(ptx::Bfloat{bits}));
    return values;
  };
  compare(outcome, download, exact);
}

inline void launch_all(Outcome& outcome, const Kernels& kernels, const std::vector<cuda::Launch>& plan,
                       ptx::Memory& memory) {
  for (const cuda::Launch& launch : plan)
    outcome.add(ptx::run(kernels.module_of(launch.kernel), launch, memory, {.profile = true}));
}

inline std::string file_of(const std::string& kernel) {
  for (const char* stem : {"interval_attention_forward", "interval_attention_decode",
                           "interval_attention_query_gradient", "interval_attention_key_gradient"})
    if (kernel.starts_with(stem)) return text(stem, "_bf16");
  if (kernel.starts_with("interval_attention_rows")) return "interval_attention_rows";
  if (kernel.starts_with("recurrence_output") || kernel.starts_with("recurrence_grad_"))
    return "recurrence_cuda_outputs";
  return kernel.starts_with("recurrence_step") ? "recurrence_cuda_step" : "recurrence_cuda_states";
}

// Causal attention of `queries` last tokens of `keys`, two heads on one key head, its float64 results and its launches.
class AttentionLaunch {
 public:
  AttentionLaunch(int64_t queries, int64_t keys, int64_t heads)
      : q_(queries, heads, kSize, 1),
        k_(keys, 1, kSize, 2),
        v_(keys, 1, kSize, 3),
        d_o_(queries, heads, kSize, 4),
        o_(q_),
        dq_(q_),
        dk_(k_),
        dv_(v_),
        lse_(static_cast<size_t>(queries * heads)) {
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < queries; ++i) solve(h, i, i + keys - queries + 1);
  }

  Outcome forward(const Kernels& kernels, const interval::CudaOptions& options) const {
    Outcome outcome;
    ptx::Memory memory;
    interval::Params p = params(memory);
    p.o = rows(memory.allocate("o", o_.values.size() * 2), q_);
    p.lse = memory.allocate_array<float>("lse", lse_.size());
    launch(outcome, kernels, memory, [&](void* space) { return interval::plan_forward(p, space, options); });
    compare(outcome, memory, p.o.data, o_.values);
    return outcome;
  }

  Outcome backward(const Kernels& kernels) const {
    Outcome outcome;
    ptx::Memory memory;
    interval::Params p = params(memory);
    std::vector<uint16_t> o;
    for (const double x : o_.values) o.push_back(ptx::to_bfloat(static_cast<float>(x)).bits);
    p.o = rows(memory.upload("o", o), q_);
    p.lse = memory.upload("lse", lse_);
    interval::Gradients g{};
    g.d_o = rows(memory.upload("d_o", d_o_.bits), q_);
    g.dq = rows(memory.allocate("dq", dq_.values.size() * 2), q_);
    g.dk = rows(memory.allocate("dk", dk_.values.size() * 2), k_);
    g.dv = rows(memory.allocate("dv", dv_.values.size() * 2), v_);
    launch(outcome, kernels, memory, [&](void* space) { return interval::plan_backward(p, g, space); });
    compare(outcome, memory, g.dq.data, dq_.values);
    compare(outcome, memory, g.dk.data, dk_.values);
    compare(outcome, memory, g.dv.data, dv_.values);
    return outcome;
  }

 private:
  static constexpr int64_t kSize = 64;
  static constexpr double kScale = 0.125;

  // Row i of head h, which sees `seen` keys.
  void solve(int64_t h, int64_t i, int64_t seen) {
    std::vector<double> p(static_cast<size_t>(seen)), dp(p.size());
    double sum = 0, delta = 0;
    for (int64_t j = 0; j < seen; ++j) sum += p[j] = std::exp(kScale * dot(q_, i, h, k_, j, 0));
    lse_[static_cast<size_t>(h * q_.tokens + i)] = static_cast<float>(std::log(sum));
    for (int64_t j = 0; j < seen; ++j) {
      p[j] /= sum;
      dp[j] = dot(d_o_, i, h, v_, j, 0);
      delta += p[j] * dp[j];
      o_.add(i, h, p[j], v_, j, 0);
      dv_.add(j, 0, p[j], d_o_, i, h);
    }
    for (int64_t j = 0; j < seen; ++j) {
      const double ds = kScale * p[j] * (dp[j] - delta);
      dq_.add(i, h, ds, k_, j, 0);
      dk_.add(j, 0, ds, q_, i, h);
    }
  }

  static interval::Strided rows(void* data, const Rows& like) {
    return {data, like.tokens * like.heads * like.size, like.heads * like.size, like.size};
  }

  interval::Params params(ptx::Memory& memory) const {
    interval::Params p{};
    p.dtype = DType::kBFloat16;
    p.batches = 1, p.queries = q_.tokens, p.keys = k_.tokens, p.heads = q_.heads;
    p.key_heads = p.value_heads = 1, p.qk_size = p.v_size = kSize;
    p.scale = kScale;
    p.causal = true;
    p.documents = 1;
    p.q = rows(memory.upload("q", q_.bits), q_);
    p.k = rows(memory.upload("k", k_.bits), k_);
    p.v = rows(memory.upload("v", v_.bits), v_);
    return p;
  }

  template <class Plan>
  static void launch(Outcome& outcome, const Kernels& kernels, ptx::Memory& memory, Plan plan) {
    void* space = memory.allocate("workspace", plan(nullptr).workspace_bytes);
    launch_all(outcome, kernels, plan(space).launches, memory);
  }

  Rows q_, k_, v_, d_o_;
  Exact o_, dq_, dk_, dv_;
  std::vector<float> lse_;
};

// o_i = scale sum over j <= i of exp(decays from j + 1 to i) (q_i . k_j) v_j, two heads on one key and value head, and the
// gradients.
class RecurrenceLaunch {
 public:
  RecurrenceLaunch(int64_t tokens, int64_t dk, int64_t dv)
      : q_(tokens, kHeads, dk, 1),
        k_(tokens, 1, dk, 2),
        v_(tokens, 1, dv, 3),
        d_o_(tokens, kHeads, dv, 4),
        o_(d_o_),
        dq_(q_),
        dk_(k_),
        dv_(v_) {
    std::mt19937 random(5);
    std::uniform_real_distribution<float> decay(-0.03f, 0.0f);  // chunks before still count
    for (int64_t i = 0; i < tokens * kHeads; ++i) log_decay_.push_back(decay(random));
    d_log_decay_.resize(log_decay_.size());
    for (int64_t h = 0; h < kHeads; ++h)
      for (int64_t i = 0; i < tokens; ++i) solve(h, i);
  }

  // Forward and, when wanted, backward from the states that it kept.
  Outcome run(const Kernels& kernels, bool with_backward) const {
    namespace rc = recurrence_cuda;
    Outcome outcome;
    ptx::Memory memory;
    const rc::Sequence sequence{.tokens = q_.tokens};
    rc::Shape shape{.heads = kHeads, .key_heads = 1, .value_heads = 1, .dk = q_.size, .dv = v_.size};
    shape.chunk = shape.segment = rc::kChunk;
    shape.sequences = &sequence, shape.sequence_count = 1;
    shape.scale = kScale, shape.dtype = DType::kBFloat16;
    shape.decay = rc::Decay::kToken, shape.log_decay = memory.upload("log_decay", log_decay_);
    shape.decay_row = q_.tokens * kHeads, shape.decay_token = kHeads, shape.decay_head = 1;
    shape.segment_count = rc::count_chunks(shape);
    const auto lists = memory.upload("lists", rc::make_lists(shape));
    const rc::View q = view(memory.upload("q", q_.bits), q_), k = view(memory.upload("k", k_.bits), k_),
                   v = view(memory.upload("v", v_.bits), v_),
                   d_o = view(memory.upload("d_o", d_o_.bits), d_o_);
    const auto result = [&](const char* name, const Rows& like) {
      return view(memory.allocate(name, like.bits.size() * 2), like);
    };
    rc::Forward forward{.shape = shape, .q = q, .k = k, .v = v, .o = result("o", d_o_)};
    forward.checkpoints = static_cast<float*>(memory.allocate("states", rc::checkpoint_bytes(shape)));
    const auto space = [&](size_t bytes) {
      return rc::DeviceMemory{lists, memory.allocate("workspace", bytes)};
    };
    launch_all(outcome, kernels, rc::plan_forward(forward, space(rc::forward_workspace_bytes(forward))),
               memory);
    compare(outcome, memory, forward.o.data, o_.values);
    if (!with_backward) return outcome;
    rc::Backward backward{.shape = shape, .q = q, .k = k, .v = v, .grad_o = d_o};
    backward.dq = result("dq", q_), backward.dk = result("dk", k_), backward.dv = result("dv", v_);
    backward.checkpoints = forward.checkpoints;
    backward.d_log_decay = memory.allocate_array<float>("d_log_decay", d_log_decay_.size());
    backward.d_decay_row = shape.decay_row;
    launch_all(outcome, kernels, rc::plan_backward(backward, space(rc::backward_workspace_bytes(backward))),
               memory);
    compare(outcome, memory, backward.dq.data, dq_.values);
    compare(outcome, memory, backward.dk.data, dk_.values);
    compare(outcome, memory, backward.dv.data, dv_.values);
    compare(
        outcome, [&] { return memory.download(backward.d_log_decay, d_log_decay_.size()); }, d_log_decay_);
    return outcome;
  }

 private:
  static constexpr int64_t kHeads = 2;
  static constexpr float kScale = 0.125f;

  void solve(int64_t h, int64_t i) {
    double decay = 0;
    std::vector<double> pairs(static_cast<size_t>(i) + 1);  // terms of the loss do . o
    for (int64_t j = i; j >= 0; --j) {
      const double weight = kScale * std::exp(decay);
      const double score = weight * dot(q_, i, h, k_, j, 0), gradient = weight * dot(d_o_, i, h, v_, j, 0);
      o_.add(i, h, score, v_, j, 0);
      dv_.add(j, 0, score, d_o_, i, h);
      dq_.add(i, h, gradient, k_, j, 0);
      dk_.add(j, 0, gradient, q_, i, h);
      pairs[j] = score * dot(d_o_, i, h, v_, j, 0);
      decay += log_decay_[static_cast<size_t>(j * kHeads + h)];
    }
    // A token's decay stands in the pairs of later and earlier tokens around it.
    double around = 0;
    for (int64_t m = 1; m <= i; ++m)
      d_log_decay_[static_cast<size_t>(m * kHeads + h)] += around += pairs[m - 1];
  }

  static recurrence_cuda::View view(void* data, const Rows& like) {
    return {data, like.tokens * like.heads * like.size, like.heads * like.size, like.size};
  }

  Rows q_, k_, v_, d_o_;
  Exact o_, dq_, dk_, dv_;
  std::vector<float> log_decay_;
  std::vector<double> d_log_decay_;
};

}  // namespace longreach::test
