// Small launches of the shipped kernels for the mutation gate and counts of traffic, against plain float64
// formulas: no torch. Each can touch what the faults break: more than one tile, ragged ends, two streamed
// stages, shared heads.
#pragma once
#include <cmath>
#include <random>

#include "core/error.h"
#include "layers/ops/interval_attention/cuda/plan.h"
#include "layers/ops/recurrence/cuda/plan.h"
#include "tests/ptx/interpreter/mutation.h"
#include "tests/ptx/interpreter/types.h"

namespace longreach::test {

using ptx::Kernels;
using ptx::Outcome;

// Normal values rounded to a type, [tokens, heads, size], and their bytes as kernels read them.
struct Rows {
  int64_t tokens, heads, size;
  DType dtype;
  std::vector<float> values;
  std::vector<std::byte> bytes;

  Rows(int64_t tokens, int64_t heads, int64_t size, unsigned seed, DType dtype = DType::kBFloat16)
      : tokens(tokens), heads(heads), size(size), dtype(dtype) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < tokens * heads * size; ++i) values.push_back(normal(random));
    bytes = encode(dtype, values);
    values = decode(dtype, bytes);
  }
  // So that sums only grow, and what is cut off them does not cancel out.
  void make_positive() {
    for (float& x : values) x = std::fabs(x);
    bytes = encode(dtype, values);
  }
  double operator()(int64_t token, int64_t head, int64_t i) const {
    return values[static_cast<size_t>((token * heads + head) * size + i)];
  }

  static size_t element_bytes(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }
  static std::vector<std::byte> encode(DType dtype, const std::vector<float>& values) {
    std::vector<std::byte> bytes(values.size() * element_bytes(dtype));
    for (size_t i = 0; i < values.size(); ++i) {
      const uint16_t half =
          dtype == DType::kBFloat16 ? ptx::to_bfloat(values[i]).bits : ptx::to_half(values[i]).bits;
      if (dtype == DType::kFloat32)
        std::memcpy(bytes.data() + 4 * i, &values[i], 4);
      else
        std::memcpy(bytes.data() + 2 * i, &half, 2);
    }
    return bytes;
  }
  static std::vector<float> decode(DType dtype, const std::vector<std::byte>& bytes) {
    std::vector<float> values(bytes.size() / element_bytes(dtype));
    for (size_t i = 0; i < values.size(); ++i) {
      uint16_t half = 0;
      if (dtype == DType::kFloat32) {
        std::memcpy(&values[i], bytes.data() + 4 * i, 4);
        continue;
      }
      std::memcpy(&half, bytes.data() + 2 * i, 2);
      values[i] =
          dtype == DType::kBFloat16 ? ptx::to_float(ptx::Bfloat{half}) : ptx::to_float(ptx::Half{half});
    }
    return values;
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
  explicit Exact(const Rows& like) : heads(like.heads), size(like.size), values(like.values.size()) {}
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

// Results of a type.
inline void compare(Outcome& outcome, const ptx::Memory& memory, const void* data, DType dtype,
                    const std::vector<double>& exact) {
  const auto download = [&] {
    return Rows::decode(dtype, memory.download(static_cast<const std::byte*>(data),
                                               exact.size() * Rows::element_bytes(dtype)));
  };
  compare(outcome, download, exact);
}

inline void launch_all(Outcome& outcome, const Kernels& kernels, const std::vector<cuda::Launch>& plan,
                       ptx::Memory& memory) {
  for (const cuda::Launch& launch : plan)
    outcome.add(ptx::run(kernels.module_of(launch.kernel), launch, memory, {.profile = true}));
}

// NAME of the NAME.ptx that holds the kernel.
inline std::string file_of(const std::string& kernel) {
  for (const char* stem : {"interval_attention_forward", "interval_attention_decode",
                           "interval_attention_query_gradient", "interval_attention_key_gradient"})
    for (const char* type : {"_bf16", "_fp16", "_fp32"})
      if (kernel.starts_with(text(stem, type))) return text(stem, type);
  for (const char* stem : {"interval_attention_dense_forward", "interval_attention_dense_query_gradient",
                           "interval_attention_dense_key_gradient"})
    if (kernel.starts_with(stem)) return text(stem, "_sm90a");
  if (kernel.starts_with("attention_rows")) return "attention_rows";
  if (kernel.starts_with("interval_attention_rows")) return "interval_attention_rows";
  if (kernel.starts_with("recurrence_output") || kernel.starts_with("recurrence_grad_"))
    return "recurrence_outputs";
  if (kernel.starts_with("recurrence_"))
    return kernel.starts_with("recurrence_step") ? "recurrence_step" : "recurrence_states";
  return "rows_kernels";
}

// Causal attention of `queries` last tokens of `keys`, two heads on one key head, its float64 results and its
// launches.
class AttentionLaunch {
 public:
  // positive: values and gradients of the output.
  AttentionLaunch(int64_t queries, int64_t keys, int64_t heads, DType dtype = DType::kBFloat16,
                  bool positive = false)
      : q_(queries, heads, kSize, 1, dtype),
        k_(keys, 1, kSize, 2, dtype),
        v_(keys, 1, kSize, 3, dtype),
        d_o_(queries, heads, kSize, 4, dtype),
        o_(q_),
        dq_(q_),
        dk_(k_),
        dv_(v_),
        lse_(static_cast<size_t>(queries * heads)) {
    if (positive) v_.make_positive(), d_o_.make_positive();
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < queries; ++i) solve(h, i, i + keys - queries + 1);
  }

  Outcome forward(const Kernels& kernels, const interval::CudaOptions& options) const {
    Outcome outcome;
    ptx::Memory memory;
    interval::Params p = params(memory);
    p.o = result(memory, "o", q_);
    p.lse = memory.allocate_array<float>("lse", lse_.size());
    launch(outcome, kernels, memory, [&](void* space) { return interval::plan_forward(p, space, options); });
    compare(outcome, memory, p.o.data, p.dtype, o_.values);
    return outcome;
  }

  Outcome backward(const Kernels& kernels, const interval::CudaOptions& options = {}) const {
    Outcome outcome;
    ptx::Memory memory;
    interval::Params p = params(memory);
    p.o = rows(memory.upload("o", Rows::encode(p.dtype, {o_.values.begin(), o_.values.end()})), q_);
    p.lse = memory.upload("lse", lse_);
    interval::Gradients g{};
    g.d_o = rows(memory.upload("d_o", d_o_.bytes), q_);
    g.dq = result(memory, "dq", q_);
    g.dk = result(memory, "dk", k_);
    g.dv = result(memory, "dv", v_);
    launch(outcome, kernels, memory,
           [&](void* space) { return interval::plan_backward(p, g, space, options); });
    compare(outcome, memory, g.dq.data, p.dtype, dq_.values);
    compare(outcome, memory, g.dk.data, p.dtype, dk_.values);
    compare(outcome, memory, g.dv.data, p.dtype, dv_.values);
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

  static Strided rows(void* data, const Rows& like) {
    return {data, like.tokens * like.heads * like.size, like.heads * like.size, like.size};
  }

  static Strided result(ptx::Memory& memory, const char* name, const Rows& like) {
    return rows(memory.allocate(name, like.bytes.size()), like);
  }

  interval::Params params(ptx::Memory& memory) const {
    interval::Params p{};
    p.dtype = q_.dtype;
    p.batches = 1, p.queries = q_.tokens, p.keys = k_.tokens, p.heads = q_.heads;
    p.key_heads = p.value_heads = 1, p.qk_size = p.v_size = kSize;
    p.scale = kScale;
    p.causal = true;
    p.documents = 1;
    p.q = rows(memory.upload("q", q_.bytes), q_);
    p.k = rows(memory.upload("k", k_.bytes), k_);
    p.v = rows(memory.upload("v", v_.bytes), v_);
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

// o_i = scale sum over j <= i of exp(decays from j + 1 to i) (q_i . k_j) v_j, two heads on one key and value
// head, and the gradients.
class RecurrenceLaunch {
 public:
  // positive: everything.
  RecurrenceLaunch(int64_t tokens, int64_t dk, int64_t dv, DType dtype = DType::kBFloat16,
                   bool positive = false)
      : q_(tokens, kHeads, dk, 1, dtype),
        k_(tokens, 1, dk, 2, dtype),
        v_(tokens, 1, dv, 3, dtype),
        d_o_(tokens, kHeads, dv, 4, dtype),
        o_(d_o_),
        dq_(q_),
        dk_(k_),
        dv_(v_) {
    if (positive)
      for (Rows* rows : {&q_, &k_, &v_, &d_o_}) rows->make_positive();
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
    shape.scale = kScale, shape.dtype = q_.dtype;
    shape.decay = rc::Decay::kToken, shape.log_decay = memory.upload("log_decay", log_decay_);
    shape.decay_row = q_.tokens * kHeads, shape.decay_token = kHeads, shape.decay_head = 1;
    shape.segment_count = rc::count_chunks(shape);
    const auto lists = memory.upload("lists", rc::make_lists(shape));
    const Strided q = view(memory.upload("q", q_.bytes), q_), k = view(memory.upload("k", k_.bytes), k_),
                  v = view(memory.upload("v", v_.bytes), v_),
                  d_o = view(memory.upload("d_o", d_o_.bytes), d_o_);
    const auto result = [&](const char* name, const Rows& like) {
      return view(memory.allocate(name, like.bytes.size()), like);
    };
    rc::Forward forward{.shape = shape, .q = q, .k = k, .v = v, .o = result("o", d_o_)};
    forward.checkpoints = static_cast<float*>(memory.allocate("states", rc::checkpoint_bytes(shape)));
    const auto space = [&](size_t bytes) {
      return rc::DeviceMemory{lists, memory.allocate("workspace", bytes)};
    };
    launch_all(outcome, kernels, rc::plan_forward(forward, space(rc::forward_workspace_bytes(forward))),
               memory);
    compare(outcome, memory, forward.o.data, shape.dtype, o_.values);
    if (!with_backward) return outcome;
    rc::Backward backward{.shape = shape, .q = q, .k = k, .v = v, .grad_o = d_o};
    backward.dq = result("dq", q_), backward.dk = result("dk", k_), backward.dv = result("dv", v_);
    backward.checkpoints = forward.checkpoints;
    backward.d_log_decay = memory.allocate_array<float>("d_log_decay", d_log_decay_.size());
    backward.d_decay_row = shape.decay_row;
    launch_all(outcome, kernels, rc::plan_backward(backward, space(rc::backward_workspace_bytes(backward))),
               memory);
    compare(outcome, memory, backward.dq.data, shape.dtype, dq_.values);
    compare(outcome, memory, backward.dk.data, shape.dtype, dk_.values);
    compare(outcome, memory, backward.dv.data, shape.dtype, dv_.values);
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

  static Strided view(void* data, const Rows& like) {
    return {data, like.tokens * like.heads * like.size, like.heads * like.size, like.size};
  }

  Rows q_, k_, v_, d_o_;
  Exact o_, dq_, dk_, dv_;
  std::vector<float> log_decay_;
  std::vector<double> d_log_decay_;
};

// One token: o = scale q^T (exp(decay) S + k v^T), two heads with one key.
class StepLaunch {
 public:
  explicit StepLaunch(DType dtype)
      : q_(1, kHeads, kSize, 1, dtype), k_(1, 1, kSize, 2, dtype), v_(1, 1, kSize, 3, dtype), o_(q_) {
    std::mt19937 random(4);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < kHeads * kSize * kSize; ++i) state_.push_back(normal(random));
    for (int64_t h = 0; h < kHeads; ++h)
      for (int64_t r = 0; r < kSize; ++r)
        for (int64_t c = 0; c < kSize; ++c) {
          new_state_.push_back(std::exp(static_cast<double>(kDecay[h])) * state_[new_state_.size()] +
                               k_(0, 0, r) * v_(0, 0, c));
          o_.row(0, h)[c] += kScale * q_(0, h, r) * new_state_.back();
        }
  }

  Outcome run(const Kernels& kernels) const {
    namespace rc = recurrence_cuda;
    ptx::Memory memory;
    const auto view = [](void* data, const Rows& rows) {
      return Strided{data, rows.heads * rows.size, 0, rows.size};
    };
    rc::Step step{.batch = 1, .heads = kHeads, .key_heads = 1, .value_heads = 1, .dk = kSize, .dv = kSize};
    step.dtype = q_.dtype, step.scale = kScale;
    step.q = view(memory.upload("q", q_.bytes), q_), step.k = view(memory.upload("k", k_.bytes), k_);
    step.v = view(memory.upload("v", v_.bytes), v_);
    step.o = view(memory.allocate("o", q_.bytes.size()), q_);
    step.log_decay = memory.upload("log_decay", std::vector<float>(kDecay, kDecay + kHeads));
    step.decay_row = kHeads, step.decay_head = 1;
    step.state = memory.upload("state", state_);
    step.new_state = memory.allocate_array<float>("new_state", state_.size());
    Outcome outcome;
    launch_all(outcome, kernels, rc::plan_step(step), memory);
    compare(outcome, memory, step.o.data, step.dtype, o_.values);
    compare(
        outcome, [&] { return memory.download(step.new_state, state_.size()); }, new_state_);
    return outcome;
  }

 private:
  static constexpr int64_t kSize = 128, kHeads = 2;
  static constexpr float kScale = 0.5f, kDecay[kHeads] = {-0.5f, -0.25f};

  Rows q_, k_, v_;
  Exact o_;
  std::vector<float> state_;
  std::vector<double> new_state_;
};

}  // namespace longreach::test
