// Contestants in this process: our operators, and PyTorch's C++ scaled_dot_product_attention.
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include "train/bench/contestant.h"

namespace longreach::bench {
namespace {

class LocalContestant : public Contestant {
 public:
  // `function` takes and gives the layout of `problem`; heads_first says that it is [B, H, T, D].
  LocalContestant(AttentionFunction function, const Problem& problem, bool backward, bool heads_first,
                  bool same)
      : function_(std::move(function)), backward_(backward), heads_first_(heads_first), same_(same) {
    const auto prepare = [&](const at::Tensor& x, bool grad) {
      const at::Tensor laid = heads_first ? x.transpose(1, 2).contiguous() : x;
      return laid.detach().requires_grad_(grad && backward);
    };
    inputs_ = {prepare(problem.q, true), prepare(problem.k, true), prepare(problem.v, true)};
    grad_o_ = prepare(problem.grad_o, false);
  }

  Result result() override {
    Result all;
    all.o = laid_back(once());
    if (!backward_) return all;
    all.dq = laid_back(inputs_[0].grad());
    all.dk = laid_back(inputs_[1].grad());
    all.dv = laid_back(inputs_[2].grad());
    return all;
  }

  Timing run(int64_t repeats) override {
    const Timing start = now();
    for (int64_t i = 0; i < repeats; ++i) once();
    return since(start);
  }

  bool same_function() const override { return same_; }

 private:
  at::Tensor once() {
    for (at::Tensor& input : inputs_) input.mutable_grad() = at::Tensor();
    const at::AutoGradMode recording(backward_);
    at::Tensor o = function_(inputs_[0], inputs_[1], inputs_[2]);
    if (backward_) o.backward(grad_o_);
    return o;
  }

  at::Tensor laid_back(const at::Tensor& x) const {
    return heads_first_ ? x.detach().transpose(1, 2) : x.detach();
  }

  AttentionFunction function_;
  bool backward_, heads_first_, same_;
  std::vector<at::Tensor> inputs_;
  at::Tensor grad_o_;
};

}  // namespace

std::unique_ptr<Contestant> local_contestant(const BenchCase& bench_case, const Problem& problem,
                                             bool backward) {
  return std::make_unique<LocalContestant>(bench_case.fused, problem, backward, false, true);
}

std::unique_ptr<Contestant> dense_contestant(const BenchCase& bench_case, const Problem& problem,
                                             bool backward) {
  return std::make_unique<LocalContestant>(interval_attention_case().fused, problem, backward, false,
                                           bench_case.is_causal_softmax);
}

std::unique_ptr<Contestant> sdpa_contestant(const BenchCase& bench_case, const Problem& problem,
                                            bool backward) {
  // Without its slow fallback SDPA either takes the flash kernel or says that it cannot.
  at::globalContext().setSDPUseMath(false);
  const auto sdpa = [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return at::scaled_dot_product_attention(q, k, v, {}, 0.0, true, std::nullopt, q.size(1) != k.size(1));
  };
  return std::make_unique<LocalContestant>(sdpa, problem, backward, true, bench_case.is_causal_softmax);
}

}  // namespace longreach::bench
