// The scan of states over spans: against the loop that defines it, its gradient, and what it sends.
#include "layers/attention/common/context/scan.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <random>

#include "distributed/threads.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {
namespace {

const CommConfig kPatient{.timeout = std::chrono::seconds(60), .check = true};

// What enters each span when all spans are here. leaves [spans, H, Dk, Dv], factors [spans, H, W].
at::Tensor looped(const SequenceLayout& layout, const at::Tensor& leaves, const at::Tensor& factors) {
  std::vector<at::Tensor> enters;
  at::Tensor state = at::zeros_like(leaves[0]);
  for (size_t i = 0; i < layout.spans().size(); ++i) {
    const Span& span = layout.spans()[i];
    if (layout.document_of(span.begin).begin == span.begin) state = at::zeros_like(state);
    enters.push_back(state);
    const bool through = layout.document_of(span.end - 1).begin < span.begin;
    const auto n = static_cast<int64_t>(i);
    state = through ? factors[n].unsqueeze(-1) * state + leaves[n] : leaves[n];
  }
  return at::stack(enters);
}

// Of the spans of a rank that a document enters, or leaves.
at::Tensor of_rank(const SequenceLayout& layout, int rank, const at::Tensor& spans, bool entering) {
  std::vector<at::Tensor> own;
  for (size_t i = 0; i < layout.spans().size(); ++i) {
    const int64_t at = entering ? layout.spans()[i].begin : layout.spans()[i].end;
    const bool crossed = at < layout.total() && layout.document_of(at).begin < at;
    if (layout.spans()[i].owner == rank && crossed) own.push_back(spans[static_cast<int64_t>(i)]);
  }
  auto sizes = spans.sizes().vec();
  sizes[0] = 0;
  return own.empty() ? at::zeros(sizes, spans.options()) : at::stack(own);
}

struct Sizes {
  int64_t heads = 4, dk = 3, dv = 5;
};

int64_t share(int64_t heads, int64_t ranks, int64_t rank) {
  return heads * (rank + 1) / ranks - heads * rank / ranks;
}

void expect_scan(const SequenceLayout& layout, const Sizes& sizes, bool by_feature, at::ScalarType dtype) {
  const auto spans = static_cast<int64_t>(layout.spans().size());
  const int64_t width = by_feature ? sizes.dk : 1, size = sizes.dk * sizes.dv;
  const at::Tensor leaves = normal({spans, sizes.heads, sizes.dk, sizes.dv}, 1, dtype).requires_grad_(true),
                   factors = normal({spans, sizes.heads, width}, 2, dtype).abs().neg().exp();
  const at::Tensor enters = looped(layout, leaves, factors), grads = normal(enters.sizes(), 3, dtype);
  at::Tensor expected_gradient = at::zeros_like(leaves);
  if (enters.requires_grad()) {
    enters.backward(grads);
    expected_gradient = leaves.grad();
  }
  const double tolerance = dtype == at::kDouble ? 1e-14 : 1e-6;
  run_ranks(
      layout.ranks(),
      [&](const Group& ranks) {
        const int rank = ranks->rank();
        const StateScan scan(std::make_shared<ContextGroup>(ranks, layout), "scan");
        const auto own = [&](const at::Tensor& x, bool entering) {
          return of_rank(layout, rank, x.detach(), entering);
        };
        const auto entering = scan.forward(own(leaves, false), own(factors, false));
        const at::Tensor expected = own(enters, true),
                         gradient = scan.backward(own(grads, true), entering.factors),
                         returned = own(expected_gradient, false);
        ASSERT_EQ(entering.states.sizes(), expected.sizes());
        ASSERT_EQ(gradient.sizes(), returned.sizes());
        if (expected.numel() > 0) {
          EXPECT_LE(relative_error(entering.states, expected), tolerance);
        }
        if (returned.numel() > 0) {
          EXPECT_LE(relative_error(gradient, returned), tolerance);
        }
        // The closed formula of scan.h.
        const int64_t h = share(sizes.heads, layout.ranks(), rank), others = sizes.heads - h,
                      in = expected.size(0), out = returned.size(0);
        int64_t all = 0;
        for (int r = 0; r < layout.ranks(); ++r) all += of_rank(layout, r, grads, true).size(0);
        const auto bytes = static_cast<int64_t>(c10::elementSize(dtype));
        EXPECT_EQ(ranks->traffic().at("scan").bytes,
                  (out * others * (size + width) + (all - in) * h * size) * bytes);
        EXPECT_EQ(ranks->traffic().at("scan.backward").bytes,
                  (in * others * size + (all - out) * h * size) * bytes);
      },
      kPatient);
}

const std::vector<std::vector<int32_t>>& rows() {
  static const std::vector<std::vector<int32_t>> all{
      {0, 1500},      {0, 63}, {0, 1}, {0, 3, 3, 410, 777, 1009, 1010, 1500}, {0, 500, 1000, 1500},
      {0, 1, 2, 3, 4}};
  return all;
}

TEST(StateScan, IsTheLoopOverAllSpans) {
  for (const int ranks : {1, 2, 3, 4})
    for (const Balance balance : {Balance::none, Balance::headtail, Balance::ptrr})
      for (const auto& bounds : rows()) {
        SCOPED_TRACE(::testing::Message() << ranks << " ranks, " << bounds.size() - 1 << " documents");
        const SequenceLayout layout(bounds, ranks, 64, balance, causal_pairs);
        expect_scan(layout, {}, false, at::kDouble);
        expect_scan(layout, {.heads = 3, .dk = 2, .dv = 2}, true, at::kFloat);
      }
}

// Heads that cannot be shared out evenly, fewer than there are ranks.
TEST(StateScan, AnyNumberOfHeads) {
  const SequenceLayout layout({0, 3, 900}, 4, 64, Balance::headtail, causal_pairs);
  for (const int64_t heads : {1, 2, 3, 5, 7}) expect_scan(layout, {.heads = heads}, false, at::kDouble);
}

TEST(StateScan, SeededLayouts) {
  std::mt19937 random(7);
  for (int draw = 0; draw < 200; ++draw) {
    std::vector<int32_t> bounds{0};
    const int documents = 1 + static_cast<int>(random() % 6);
    for (int d = 0; d < documents; ++d)
      bounds.push_back(bounds.back() + static_cast<int32_t>(random() % (random() % 3 == 0 ? 2 : 60)));
    if (bounds.back() == 0) continue;
    const SequenceLayout layout(bounds, 1 + static_cast<int>(random() % 4),
                                1 + static_cast<int64_t>(random() % 9), static_cast<Balance>(random() % 3),
                                causal_pairs);
    SCOPED_TRACE(draw);
    expect_scan(layout, {.heads = 2, .dk = 2, .dv = 1}, false, at::kDouble);
    if (HasFailure()) return;
  }
}

// The design's formula: one document in as many spans as ranks, heads that are shared out evenly. Rank 0
// sends one state there and serves all others; no more crosses, whatever the length.
TEST(StateScan, BytesDoNotGrowWithTheSequence) {
  for (const int ranks : {2, 4})
    for (const int32_t tokens : {2048, 32768}) {
      const SequenceLayout layout({0, tokens}, ranks, 64, Balance::none, causal_pairs);
      std::vector<int64_t> sent(static_cast<size_t>(ranks), 0);
      run_ranks(ranks, [&](const Group& group) {
        const StateScan scan(std::make_shared<ContextGroup>(group, layout), "scan");
        const int64_t out = group->rank() + 1 < ranks ? 1 : 0, in = group->rank() > 0 ? 1 : 0;
        const auto entering =
            scan.forward(normal({out, 4, 16, 8}, 1, at::kFloat), normal({out, 4, 1}, 2, at::kFloat));
        scan.backward(normal({in, 4, 16, 8}, 3, at::kFloat), entering.factors);
        sent[static_cast<size_t>(group->rank())] = group->traffic().at("scan").bytes;
      });
      EXPECT_EQ(sent[0], (ranks - 1) * 4 / ranks * (2 * 16 * 8 + 1) * 4) << ranks << " ranks";
      for (const int64_t bytes : sent) EXPECT_LT(bytes, 2 * 4 * 16 * 8 * 4);
    }
}

TEST(StateScan, DocumentsOfOneSpanSendNothing) {
  const SequenceLayout layout({0, 64, 128, 192, 256}, 4, 64, Balance::none, causal_pairs);
  EXPECT_TRUE(crossings(layout).empty());
}

}  // namespace
}  // namespace longreach::test
