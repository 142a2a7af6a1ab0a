// Recurrences of a row that several ranks share, against the operator that has the whole row: any decay,
// shared heads, all gradients.
#include "layers/attention/common/context/recurrence.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/Allocator.h>
#include <gtest/gtest.h>

#include <atomic>
#include <limits>

#include "distributed/threads.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {
namespace {

const CommConfig kPatient{.timeout = std::chrono::seconds(100), .check = true};

// q, k, v, log_decay (undefined: none) of a whole row.
using Inputs = std::vector<at::Tensor>;

Inputs drawn(int64_t tokens, int decay_dims, at::ScalarType dtype) {
  at::Tensor decay;
  if (decay_dims == 1) decay = normal({4}, 4, dtype).abs().neg() * 0.02;
  if (decay_dims == 3) decay = normal({1, tokens, 4}, 4, dtype).abs().neg() * 0.02;
  return {normal({1, tokens, 4, 6}, 1, dtype), normal({1, tokens, 2, 6}, 2, dtype),
          normal({1, tokens, 1, 5}, 3, dtype), decay};
}

// o, then the gradients of the inputs that there are; without tokens, the reference's decays have none.
template <class Operator>
std::vector<at::Tensor> run(const Inputs& inputs, const at::Tensor& grad_o, const Operator& operate) {
  Inputs leaves;
  for (const at::Tensor& input : inputs)
    leaves.push_back(input.defined() ? input.detach().clone().requires_grad_(true) : input);
  const at::Tensor o = operate(leaves);
  o.backward(grad_o);
  std::vector<at::Tensor> results{o.detach()};
  for (const at::Tensor& leaf : leaves)
    if (leaf.defined()) results.push_back(leaf.grad().defined() ? leaf.grad() : at::zeros_like(leaf));
  return results;
}

at::Tensor of_rank(const SequenceLayout& layout, int rank, const at::Tensor& x) {
  if (!x.defined() || x.dim() == 1) return x;
  std::vector<at::Tensor> parts{x.narrow(1, 0, 0)};
  for (const Interval& part : layout.owned(rank)) parts.push_back(x.narrow(1, part.begin, part.size()));
  return at::cat(parts, 1);
}

void expect_one_rank(const SequenceLayout& layout, int decay_dims, at::ScalarType dtype) {
  const auto implementation = dtype == at::kDouble ? Implementation::reference : Implementation::fused;
  const RecurrenceOptions options{.scale = 0.4, .chunk = 16};
  const Inputs inputs = drawn(layout.total(), decay_dims, dtype);
  const at::Tensor grad_o = normal({1, layout.total(), 4, 5}, 5, dtype),
                   bounds = at::tensor(layout.cu_seqlens(), at::kInt);
  const auto expected = run(inputs, grad_o, [&](const Inputs& in) {
    return recurrence_by(implementation, in[0], in[1], in[2], in[3], {}, bounds, options).o;
  });
  std::vector<std::vector<at::Tensor>> found(static_cast<size_t>(layout.ranks()));
  run_ranks(
      layout.ranks(),
      [&](const Group& ranks) {
        Inputs own;
        for (const at::Tensor& input : inputs) own.push_back(of_rank(layout, ranks->rank(), input));
        const auto group = std::make_shared<ContextGroup>(ranks, layout);
        found[static_cast<size_t>(
            ranks->rank())] = run(own, of_rank(layout, ranks->rank(), grad_o), [&](const Inputs& in) {
          return recurrence_in_pieces(group, {in[0], in[1], in[2], in[3]}, implementation, options, "test");
        });
      },
      kPatient);
  const double tolerance = dtype == at::kDouble ? 1e-13 : 2e-6;
  at::Tensor decay_gradient;
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    const auto& own = found[static_cast<size_t>(rank)];
    ASSERT_EQ(own.size(), expected.size());
    for (size_t i = 0; i < own.size(); ++i) {
      const at::Tensor whole = of_rank(layout, rank, expected[i]);
      if (whole.dim() == 1)
        decay_gradient = decay_gradient.defined() ? decay_gradient + own[i] : own[i];
      else if (whole.numel() > 0)
        EXPECT_LE(relative_error(own[i], whole), tolerance) << "result " << i << " of rank " << rank;
      else
        EXPECT_EQ(own[i].sizes(), whole.sizes());
    }
  }
  if (decay_gradient.defined()) {
    EXPECT_LE(relative_error(decay_gradient, expected.back()), tolerance);
  }
}

TEST(RecurrenceInPieces, IsThatOfOneRank) {
  for (const auto dtype : {at::kDouble, at::kFloat})
    for (const int decay_dims : {0, 1, 3})
      for (const auto& bounds : {std::vector<int32_t>{0, 300}, {0, 3, 3, 140, 250, 251, 300}, {0, 7}})
        for (const int ranks : {1, 2, 3, 4})
          for (const Balance balance : {Balance::none, Balance::headtail}) {
            SCOPED_TRACE(::testing::Message() << ranks << " ranks, " << bounds.size() - 1 << " documents, "
                                              << decay_dims << " dimensions of decay");
            expect_one_rank({bounds, ranks, 16, balance, causal_pairs}, decay_dims, dtype);
          }
}

// A decay that forgets all stays inside its document, and what is not finite in one document does not reach
// the next.
TEST(RecurrenceInPieces, DocumentsStayApart) {
  const SequenceLayout layout({0, 50, 100}, 2, 16, Balance::headtail, causal_pairs);
  Inputs inputs = drawn(100, 1, at::kFloat);
  inputs[2].narrow(1, 0, 50).fill_(std::numeric_limits<float>::infinity());
  std::vector<at::Tensor> found(2);
  run_ranks(2, [&](const Group& ranks) {
    Inputs own;
    for (const at::Tensor& input : inputs) own.push_back(of_rank(layout, ranks->rank(), input));
    found[static_cast<size_t>(ranks->rank())] =
        recurrence_in_pieces(std::make_shared<ContextGroup>(ranks, layout), {own[0], own[1], own[2], own[3]},
                             Implementation::fused, {.chunk = 16}, "test");
  });
  for (int rank = 0; rank < 2; ++rank)
    for (const Piece& piece : layout.pieces(rank)) {
      const bool second = piece.begin >= 50;
      EXPECT_EQ(
          found[static_cast<size_t>(rank)].narrow(1, piece.local, piece.tokens).isfinite().all().item<bool>(),
          second)
          << piece.begin;
    }
}

// Bytes of tensors that these threads have made and that are still there: one may free what another has made.
class LiveBytes : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override { bytes += size; }
  bool memoryProfilingEnabled() const override { return true; }
  std::atomic<int64_t> bytes = 0;
};

// What waits for the backward pass is that of the ranks' own tokens, however many are before them, and the
// states of one crossing each.
TEST(RecurrenceInPieces, KeepsNoHistory) {
  const SequenceLayout layout({0, 4096}, 4, 64, Balance::none, causal_pairs);
  const Inputs inputs = drawn(layout.total(), 1, at::kFloat);
  const auto live = std::make_shared<LiveBytes>();
  int64_t kept = 0;
  run_ranks(4, [&](const Group& ranks) {
    Inputs own;
    for (const at::Tensor& input : inputs)
      own.push_back(of_rank(layout, ranks->rank(), input).clone().requires_grad_(true));
    ranks->barrier("before");
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, live);
    const at::Tensor o =
        recurrence_in_pieces(std::make_shared<ContextGroup>(ranks, layout), {own[0], own[1], own[2], own[3]},
                             Implementation::fused, {.chunk = 16}, "test");
    ranks->barrier("after");
    if (ranks->rank() == 0) kept = live->bytes - 4 * static_cast<int64_t>(o.nbytes());
    ranks->barrier("read");
  });
  const int64_t state = 4 * 6 * 5 * 4, checkpoints = 1024 / 16 * state;
  EXPECT_GT(kept, 0);
  EXPECT_LE(kept, 4 * (checkpoints + 2 * state));
}

}  // namespace
}  // namespace longreach::test
