// The small kernels on bf16 rows with their float64 results, for the mutation gate: rows that several warps
// share, more rows than blocks.
#pragma once
#include "layers/ops/rows/cuda/plan.h"
#include "tests/layers/ops/cuda/kernel_cases.h"

namespace longreach::test {

// A matrix of `columns` in each of the tokens of `like`.
inline cuda::Matrix upload(ptx::Memory& memory, const char* name, const Rows& x) {
  return {memory.upload(name, x.bytes), x.heads * x.size};
}
inline cuda::Matrix allocate(ptx::Memory& memory, const char* name, const Rows& like) {
  return {memory.allocate(name, like.bytes.size()), like.heads * like.size};
}

// y = x rstd weight and its gradients: 9 rows of 264, three blocks.
class NormLaunch {
 public:
  NormLaunch() {
    for (int64_t r = 0; r < kRows; ++r) solve(r);
  }

  Outcome run(const Kernels& kernels) const {
    ptx::Memory memory;
    Outcome outcome;
    cuda::RmsNorm forward{.rows = kRows, .columns = kColumns, .x_dtype = x_.dtype, .y_dtype = x_.dtype};
    forward.x = upload(memory, "x", x_), forward.y = allocate(memory, "y", x_);
    forward.weight = memory.upload("weight", weight_.values), forward.eps = kEps;
    forward.rstd = memory.allocate_array<float>("rstd", kRows);
    launch_all(outcome, kernels, cuda::plan_rms_norm(forward), memory);
    compare(outcome, memory, forward.y.data, x_.dtype, y_.values);
    compare(outcome, [&] { return memory.download(forward.rstd, kRows); }, {rstd_.begin(), rstd_.end()});
    cuda::RmsNormGrad backward{.rows = kRows, .columns = kColumns, .x_dtype = x_.dtype, .y_dtype = x_.dtype};
    backward.x = forward.x, backward.weight = forward.weight;
    backward.rstd = memory.upload("rstd given", rstd_);
    backward.dy = upload(memory, "dy", dy_), backward.dx = allocate(memory, "dx", x_);
    backward.dweight = memory.allocate_array<float>("dweight", kColumns);
    backward.workspace =
        static_cast<float*>(memory.allocate("workspace", cuda::rms_norm_workspace_bytes(kRows, kColumns)));
    launch_all(outcome, kernels, cuda::plan_rms_norm_grad(backward), memory);
    compare(outcome, memory, backward.dx.data, x_.dtype, dx_.values);
    compare(
        outcome, [&] { return memory.download(backward.dweight, kColumns); }, dweight_);
    return outcome;
  }

 private:
  static constexpr int64_t kRows = 9, kColumns = 264;
  static constexpr float kEps = 1e-5f;

  void solve(int64_t r) {
    double squares = 0, mean = 0;
    for (int64_t c = 0; c < kColumns; ++c) squares += x_(r, 0, c) * x_(r, 0, c);
    const double rstd = 1 / std::sqrt(squares / kColumns + kEps);
    rstd_.push_back(static_cast<float>(rstd));
    for (int64_t c = 0; c < kColumns; ++c)
      mean += dy_(r, 0, c) * weight_(0, 0, c) * x_(r, 0, c) * rstd / kColumns;
    for (int64_t c = 0; c < kColumns; ++c) {
      const double xhat = x_(r, 0, c) * rstd;
      y_.row(r, 0)[c] = xhat * weight_(0, 0, c);
      dx_.row(r, 0)[c] = rstd * (dy_(r, 0, c) * weight_(0, 0, c) - xhat * mean);
      dweight_[c] += dy_(r, 0, c) * xhat;
    }
  }

  Rows x_{kRows, 1, kColumns, 1}, dy_{kRows, 1, kColumns, 2}, weight_{1, 1, kColumns, 3, DType::kFloat32};
  Exact y_{x_}, dx_{x_};
  std::vector<float> rstd_;
  std::vector<double> dweight_ = std::vector<double>(kColumns);
};

// Pairs of features turned, in both layouts: 5 tokens, 3 heads of 32.
class RotaryLaunch {
 public:
  explicit RotaryLaunch(bool neighbours) : neighbours_(neighbours) {
    for (int64_t t = 0; t < kTokens; ++t)
      for (int64_t i = 0; i < kHalf; ++i) {
        const double angle = 0.3 * static_cast<double>(t) + 0.1 * static_cast<double>(i);
        cos_.push_back(static_cast<float>(std::cos(angle))),
            sin_.push_back(static_cast<float>(std::sin(angle)));
        const int64_t a = neighbours ? 2 * i : i, b = neighbours ? a + 1 : a + kHalf;
        for (int64_t h = 0; h < kHeads; ++h) {
          y_.row(t, h)[a] = x_(t, h, a) * cos_.back() - x_(t, h, b) * sin_.back();
          y_.row(t, h)[b] = x_(t, h, b) * cos_.back() + x_(t, h, a) * sin_.back();
        }
      }
  }

  Outcome run(const Kernels& kernels) const {
    ptx::Memory memory;
    Outcome outcome;
    const cuda::Matrix x = upload(memory, "x", x_), y = allocate(memory, "y", x_);
    cuda::Rotary p{
        .tokens = kTokens, .heads = kHeads, .half = kHalf, .dtype = x_.dtype, .neighbours = neighbours_};
    p.x = x.data, p.y = y.data, p.x_token = p.y_token = x.row, p.x_head = p.y_head = 2 * kHalf;
    p.cos = memory.upload("cos", cos_), p.sin = memory.upload("sin", sin_);
    launch_all(outcome, kernels, cuda::plan_rotary(p), memory);
    compare(outcome, memory, y.data, x_.dtype, y_.values);
    return outcome;
  }

 private:
  static constexpr int64_t kTokens = 5, kHeads = 3, kHalf = 16;
  bool neighbours_;
  Rows x_{kTokens, kHeads, 2 * kHalf, 1};
  Exact y_{x_};
  std::vector<float> cos_, sin_;
};

// silu(gate) up and its gradients.
class SiluLaunch {
 public:
  SiluLaunch() {
    for (int64_t r = 0; r < kRows; ++r)
      for (int64_t c = 0; c < kColumns; ++c) {
        const double gate = gate_(r, 0, c), sigmoid = 1 / (1 + std::exp(-gate));
        y_.row(r, 0)[c] = gate * sigmoid * up_(r, 0, c);
        dgate_.row(r, 0)[c] = dy_(r, 0, c) * up_(r, 0, c) * sigmoid * (1 + gate * (1 - sigmoid));
        dup_.row(r, 0)[c] = dy_(r, 0, c) * gate * sigmoid;
      }
  }

  Outcome run(const Kernels& kernels) const {
    ptx::Memory memory;
    Outcome outcome;
    cuda::SiluProduct p{.rows = kRows, .columns = kColumns, .dtype = gate_.dtype};
    p.gate = upload(memory, "gate", gate_), p.up = upload(memory, "up", up_),
    p.y = allocate(memory, "y", up_);
    launch_all(outcome, kernels, cuda::plan_silu_product(p), memory);
    compare(outcome, memory, p.y.data, p.dtype, y_.values);
    p.dy = upload(memory, "dy", dy_);
    p.dgate = allocate(memory, "dgate", gate_), p.dup = allocate(memory, "dup", up_);
    launch_all(outcome, kernels, cuda::plan_silu_product(p), memory);
    compare(outcome, memory, p.dgate.data, p.dtype, dgate_.values);
    compare(outcome, memory, p.dup.data, p.dtype, dup_.values);
    return outcome;
  }

 private:
  static constexpr int64_t kRows = 3, kColumns = 264;
  Rows gate_{kRows, 1, kColumns, 1}, up_{kRows, 1, kColumns, 2}, dy_{kRows, 1, kColumns, 3};
  Exact y_{gate_}, dgate_{gate_}, dup_{gate_};
};

// A chunk of logits, one row without a label, and the sum of its losses.
class LossLaunch {
 public:
  LossLaunch() {
    for (int64_t r = 0; r < kRows; ++r) solve(r);
  }

  Outcome run(const Kernels& kernels) const {
    ptx::Memory memory;
    Outcome outcome;
    cuda::CrossEntropy p{.rows = kRows, .columns = kColumns, .dtype = logits_.dtype};
    p.logits = upload(memory, "logits", logits_), p.labels = memory.upload("labels", labels_);
    p.nll = memory.allocate_array<float>("nll", kRows), p.lse = memory.allocate_array<float>("lse", kRows);
    double* loss = p.loss = memory.upload("loss", std::vector<double>{1.5});
    p.gradient = true, p.z_loss = kZ;
    launch_all(outcome, kernels, cuda::plan_cross_entropy(p), memory);
    compare(outcome, memory, p.logits.data, p.dtype, gradient_.values);
    compare(
        outcome, [&] { return memory.download(p.nll, kRows); }, nll_);
    compare(outcome, [&] { return std::vector<float>{static_cast<float>(memory.download(loss, 1)[0])}; },
            {loss_});
    return outcome;
  }

 private:
  static constexpr int64_t kRows = 70, kColumns = 268, kIgnored = -100;
  static constexpr float kZ = 0.25f;

  void solve(int64_t r) {
    const int64_t label = r == 3 ? kIgnored : 37 * r % kColumns;
    labels_.push_back(label), nll_.push_back(0);
    if (label == kIgnored) return;
    double sum = 0;
    for (int64_t c = 0; c < kColumns; ++c) sum += std::exp(logits_(r, 0, c));
    const double lse = std::log(sum);
    for (int64_t c = 0; c < kColumns; ++c)
      gradient_.row(r, 0)[c] = std::exp(logits_(r, 0, c) - lse) * (1 + 2 * kZ * lse) - (c == label ? 1 : 0);
    nll_.back() = lse - logits_(r, 0, label);
    loss_ += nll_.back() + kZ * lse * lse;
  }

  Rows logits_{kRows, 1, kColumns, 1};
  Exact gradient_{logits_};
  std::vector<int64_t> labels_;
  std::vector<double> nll_;
  double loss_ = 1.5;
};

}  // namespace longreach::test
