#include "layers/attention/common/context/recurrence.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "layers/attention/common/context/row_exchange.h"
#include "layers/attention/common/context/scan.h"
#include "layers/ops/common/autograd.h"

namespace longreach {
namespace {

at::TensorOptions of_states(const at::Tensor& x) { return x.options().dtype(sums_of(x.scalar_type())); }

// A document, or what a span holds of one, among a rank's own tokens.
struct Part {
  int64_t number = 0;             // among all of the rank
  int64_t local = 0, tokens = 0;  // own tokens
  int64_t begin = 0;              // in the whole row

  at::Tensor of(const at::Tensor& x) const { return x.narrow(1, local, tokens); }
};

std::vector<Part> own_parts(const std::vector<Piece>& pieces) {
  std::vector<Part> parts;
  for (const Piece& piece : pieces) {
    const std::vector<int32_t> whole{0, static_cast<int32_t>(piece.tokens)};
    const std::vector<int32_t>& bounds = piece.continued() ? whole : piece.cu_seqlens;
    for (size_t d = 0; d + 1 < bounds.size(); ++d)
      parts.push_back({static_cast<int64_t>(parts.size()), piece.local + bounds[d], bounds[d + 1] - bounds[d],
                       piece.begin + bounds[d]});
  }
  return parts;
}

// The parts of this rank, and which of them a state enters or leaves, in the order of the scan.
struct OwnParts {
  std::vector<Part> entering, leaving;
  int64_t count = 0;
  at::Tensor cu_seqlens;
  bool any_crossing = false;  // of any rank

  explicit OwnParts(const ContextGroup& group) {
    const std::vector<Part> parts = own_parts(group.pieces());
    count = static_cast<int64_t>(parts.size());
    std::vector<int32_t> bounds{0};
    for (const Part& part : parts) bounds.push_back(static_cast<int32_t>(part.local + part.tokens));
    cu_seqlens = at::tensor(bounds, at::kInt);
    for (const Crossing& crossing : crossings(group.layout())) {
      any_crossing = true;
      for (const Part& part : parts) {
        if (part.begin == crossing.token) entering.push_back(part);
        if (part.begin + part.tokens == crossing.token) leaving.push_back(part);
      }
    }
  }
};

class RecurrenceInPieces final : public FusedOp {
 public:
  RecurrenceInPieces(const std::shared_ptr<const ContextGroup>& group, Implementation implementation,
                     const RecurrenceOptions& options, std::string_view label, bool keep)
      : parts_(*group),
        scan_(group, std::string(label)),
        implementation_(implementation),
        options_(options),
        pass_(recurrence_op(implementation, parts_.cu_seqlens, options, keep)) {}

  std::string name() const override { return "recurrence in pieces"; }

  Tensors forward(const Tensors& inputs, Tensors& saved) const override {
    const at::Tensor &q = inputs[0], &v = inputs[2];
    at::Tensor start, factors;
    if (parts_.any_crossing) {
      const auto entering = scan_.forward(leaving_states(inputs), leaving_factors(q, inputs[3]));
      start = spread(entering.states, parts_.entering, {q.size(2), q.size(3), v.size(3)});
      factors = entering.factors;
    }
    const at::Tensor o = pass_->forward({q, inputs[1], v, inputs[3], start}, saved)[0];
    saved.push_back(factors);
    return {o};
  }

  Tensors backward(const Tensors& saved, const Tensors& grads,
                   const std::vector<bool>& needs) const override {
    const at::Tensor &q = saved[0], &v = saved[2], &log_decay = saved[3], &factors = saved.back();
    const at::Tensor grad_o =
        grads[0].defined() ? grads[0] : at::zeros({1, q.size(1), q.size(2), v.size(3)}, v.options());
    at::Tensor grad_end;
    if (parts_.any_crossing) {
      const at::Tensor leaving = scan_.backward(entering_gradients(q, grad_o, log_decay), factors);
      grad_end = spread(leaving, parts_.leaving, {q.size(2), q.size(3), v.size(3)});
    }
    const Tensors kept(saved.begin(), saved.end() - 1);
    Tensors gradients =
        pass_->backward(kept, {grad_o, grad_end}, {needs[0], needs[1], needs[2], needs[3], false});
    gradients.resize(4);
    return gradients;
  }

 private:
  // Decays of a part: those of heads as they are.
  static at::Tensor decays_of(const Part& part, const at::Tensor& log_decay) {
    return log_decay.defined() && log_decay.dim() == 3 ? part.of(log_decay) : log_decay;
  }

  // [C, H, Dk, Dv]
  at::Tensor leaving_states(const Tensors& inputs) const {
    const at::Tensor &q = inputs[0], &k = inputs[1], &v = inputs[2];
    const at::Tensor states = at::empty(
        {static_cast<int64_t>(parts_.leaving.size()), q.size(2), q.size(3), v.size(3)}, of_states(q));
    for (size_t i = 0; i < parts_.leaving.size(); ++i) {
      const Part& part = parts_.leaving[i];
      states[static_cast<int64_t>(i)].copy_(recurrence_final_state(
          implementation_, part.of(k), part.of(v), q.size(2), decays_of(part, inputs[3]), {}, options_)[0]);
    }
    return states;
  }

  // [C, H, 1]: what is left of a state at the end of a part, in float64 until it is rounded.
  at::Tensor leaving_factors(const at::Tensor& q, const at::Tensor& log_decay) const {
    const at::Tensor factors =
        at::ones({static_cast<int64_t>(parts_.leaving.size()), q.size(2), 1}, of_states(q));
    if (!log_decay.defined()) return factors;
    for (size_t i = 0; i < parts_.leaving.size(); ++i) {
      const Part& part = parts_.leaving[i];
      const at::Tensor decays = decays_of(part, log_decay).to(at::kDouble);
      const at::Tensor sum =
          decays.dim() == 3 ? decays.sum(at::IntArrayRef{0, 1}) : decays * static_cast<double>(part.tokens);
      factors[static_cast<int64_t>(i)].copy_(sum.exp().unsqueeze(-1));
    }
    return factors;
  }

  // [E, H, Dk, Dv]
  at::Tensor entering_gradients(const at::Tensor& q, const at::Tensor& grad_o,
                                const at::Tensor& log_decay) const {
    const at::Tensor gradients = at::empty(
        {static_cast<int64_t>(parts_.entering.size()), q.size(2), q.size(3), grad_o.size(3)}, of_states(q));
    for (size_t i = 0; i < parts_.entering.size(); ++i) {
      const Part& part = parts_.entering[i];
      gradients[static_cast<int64_t>(i)].copy_(recurrence_start_gradient(
          implementation_, part.of(q), part.of(grad_o), decays_of(part, log_decay), {}, options_)[0]);
    }
    return gradients;
  }

  // States of some parts -> [all parts, H, Dk, Dv], zero for the others; of none: undefined, all zero.
  at::Tensor spread(const at::Tensor& states, const std::vector<Part>& parts,
                    const std::vector<int64_t>& sizes) const {
    if (parts.empty()) return {};
    const at::Tensor all = at::zeros({parts_.count, sizes[0], sizes[1], sizes[2]}, states.options());
    for (size_t i = 0; i < parts.size(); ++i) all[parts[i].number].copy_(states[static_cast<int64_t>(i)]);
    return all;
  }

  OwnParts parts_;
  StateScan scan_;
  Implementation implementation_;
  RecurrenceOptions options_;
  std::shared_ptr<const FusedOp> pass_;
};

}  // namespace

at::Tensor recurrence_in_pieces(std::shared_ptr<const ContextGroup> group, const PiecesOfRecurrence& input,
                                Implementation implementation, const RecurrenceOptions& options,
                                std::string_view label) {
  const Tensors inputs{input.q, input.k, input.v, input.log_decay};
  const bool keep = c10::GradMode::is_enabled() &&
                    std::any_of(inputs.begin(), inputs.end(),
                                [](const at::Tensor& x) { return x.defined() && x.requires_grad(); });
  return differentiable(std::make_shared<RecurrenceInPieces>(group, implementation, options, label, keep),
                        inputs)[0];
}

PlannedTraffic planned_recurrence(const std::shared_ptr<const ContextGroup>& group, int64_t heads, int64_t dk,
                                  int64_t dv, at::ScalarType dtype, std::string_view label) {
  const std::string name(label);
  const StateScan scan(group, name);
  const StateScan::Sent numbers = scan.sent(heads, dk, dv, 1);
  const auto size = static_cast<int64_t>(c10::elementSize(sums_of(dtype)));
  return {{{name, numbers.forward * size}}, {{scan.backward_label(), numbers.backward * size}}};
}

}  // namespace longreach
