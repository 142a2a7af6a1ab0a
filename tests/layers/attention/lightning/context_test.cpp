// Lightning attention of a row that several ranks share: what one rank gives, outputs and gradients, and what
// crosses between ranks.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>

#include "distributed/context_group.h"
#include "distributed/threads.h"
#include "layers/attention/attention.h"
#include "layers/attention/lightning/lightning.h"
#include "layers/attention/mechanisms.h"
#include "layers/ops/common/recompute.h"
#include "tests/distributed/gloo_ranks.h"
#include "tests/support/mechanism_checks.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {
namespace {

const CommConfig kPatient{.timeout = std::chrono::seconds(100), .check = true};

// y, the gradients of x and of every parameter.
using Results = std::vector<std::pair<std::string, at::Tensor>>;

std::shared_ptr<Attention> build(const AttentionConfig& config, Implementation implementation) {
  LayerSite site = small_site();
  site.implementation = implementation;
  const auto module = make_attention(config, site);
  const at::NoGradGuard no_grad;
  uint64_t seed = 900;
  for (auto& parameter : module->parameters())
    parameter.add_(normal(parameter.sizes(), seed++, at::kFloat), 0.05);
  if (implementation == Implementation::reference) module->to(at::kDouble);
  return module;
}

// One row and the gradient of its output.
struct Task {
  AttentionConfig config = LightningConfig{};
  std::vector<int32_t> bounds;
  Implementation implementation = Implementation::fused;
  at::Tensor x, dy;  // [1, T, C]

  Task(AttentionConfig layer, std::vector<int32_t> documents, at::ScalarType dtype,
       at::ScalarType values = at::kDouble)
      : config(std::move(layer)),
        bounds(std::move(documents)),
        implementation(dtype == at::kDouble ? Implementation::reference : Implementation::fused),
        x(normal({1, bounds.back(), small_site().hidden_size}, 3, values).to(dtype)),
        dy(normal(x.sizes(), 4, values).to(dtype)) {}

  at::Tensor positions() const {
    std::vector<at::Tensor> of_documents{at::empty({0}, at::kLong)};
    for (size_t d = 0; d + 1 < bounds.size(); ++d)
      of_documents.push_back(at::arange(bounds[d + 1] - bounds[d], at::kLong));
    return at::cat(of_documents).unsqueeze(0);
  }
};

Results run(const Task& task, const Batch& batch, const at::Tensor& own_x, const at::Tensor& own_dy) {
  const auto module = build(task.config, task.implementation);
  const at::Tensor x = own_x.detach().clone().requires_grad_(true);
  const at::Tensor y = module->forward(x, batch).y;
  {
    const at::NoGradGuard no_grad;
    EXPECT_TRUE(module->forward(x, batch).y.equal(y)) << "without a tape";
  }
  y.backward(own_dy);
  Results result{{"y", y.detach()}, {"gradient of x", x.grad()}};
  for (const auto& item : module->named_parameters()) {
    const at::Tensor gradient = item.value().grad();
    result.emplace_back("gradient of " + item.key(),
                        gradient.defined() ? gradient : at::zeros_like(item.value()));
  }
  return result;
}

Results whole(const Task& task) {
  return run(task, {.positions = task.positions(), .cu_seqlens = at::tensor(task.bounds, at::kInt)}, task.x,
             task.dy);
}

at::Tensor owned(const SequenceLayout& layout, int rank, const at::Tensor& x) {
  std::vector<at::Tensor> parts{x.narrow(1, 0, 0)};
  for (const Interval& part : layout.owned(rank)) parts.push_back(x.narrow(1, part.begin, part.size()));
  return at::cat(parts, 1);
}

Batch own_batch(const Task& task, const SequenceLayout& layout, const Group& ranks) {
  return {.positions = owned(layout, ranks->rank(), task.positions()),
          .context = std::make_shared<ContextGroup>(ranks, layout)};
}

// What one rank of a group gives.
Results shared(const Task& task, const SequenceLayout& layout, const Group& ranks) {
  return run(task, own_batch(task, layout, ranks), owned(layout, ranks->rank(), task.x),
             owned(layout, ranks->rank(), task.dy));
}

// All ranks together: tokens in the order of the row, gradients of parameters summed.
Results joined(const SequenceLayout& layout, const std::vector<Results>& runs) {
  Results all = runs[0];
  for (size_t i = 0; i < all.size(); ++i) {
    if (i >= 2) {
      for (size_t r = 1; r < runs.size(); ++r) all[i].second = all[i].second + runs[r][i].second;
      continue;
    }
    std::vector<at::Tensor> parts{all[i].second.narrow(1, 0, 0)};
    std::vector<int64_t> used(runs.size(), 0);
    for (const Span& span : layout.spans()) {
      const auto owner = static_cast<size_t>(span.owner);
      parts.push_back(runs[owner][i].second.narrow(1, used[owner], span.end - span.begin));
      used[owner] += span.end - span.begin;
    }
    all[i].second = at::cat(parts, 1);
  }
  return all;
}

Results on_ranks(const Task& task, const SequenceLayout& layout) {
  std::vector<Results> runs(static_cast<size_t>(layout.ranks()));
  run_ranks(
      layout.ranks(),
      [&](const Group& ranks) { runs[static_cast<size_t>(ranks->rank())] = shared(task, layout, ranks); },
      kPatient);
  return joined(layout, runs);
}

double largest(const at::Tensor& x) {
  return x.numel() == 0 ? 0.0 : x.to(at::kDouble).abs().max().item<double>();
}

// Entries apart by at most so much of the largest one. exact: in float64; where one rank is further from it
// than that, by twice as much (the gradient of theta: terms of queries and keys that grow with the position,
// and cancel).
void expect_same(const Results& found, const Results& expected, double tolerance,
                 const Results* exact = nullptr) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    const at::Tensor one = expected[i].second.to(at::kDouble);
    ASSERT_EQ(found[i].second.sizes(), one.sizes()) << expected[i].first;
    const double own = exact == nullptr ? 0.0 : largest(one - (*exact)[i].second);
    EXPECT_LE(largest(found[i].second.to(at::kDouble) - one), std::max(tolerance * largest(one), 2 * own))
        << expected[i].first;
  }
}

// Both forms, with decays and without.
std::vector<AttentionConfig> layers() {
  return {LightningConfig{}, LightningConfig{.form = "minimax", .decay = "none", .lrpe = "on", .chunk = 32}};
}

// One document, rows of a batch, packed documents of odd lengths, of one token, of none, and over four ranks.
const std::vector<std::vector<int32_t>>& rows() {
  static const std::vector<std::vector<int32_t>> all{{0, 1},
                                                     {0, 63},
                                                     {0, 150},
                                                     {0, 400},
                                                     {0, 130, 260, 390},
                                                     {0, 3, 3, 140, 250, 271, 272, 400},
                                                     {0, 1, 2, 3},
                                                     {0, 30, 390, 400}};
  return all;
}

constexpr Balance kBalances[] = {Balance::none, Balance::headtail, Balance::ptrr};

void expect_one_rank(at::ScalarType dtype, double tolerance) {
  for (const AttentionConfig& config : layers()) {
    for (const auto& bounds : rows()) {
      const Task task(config, bounds, dtype, dtype), wide(config, bounds, at::kDouble, dtype);
      const Results expected = whole(task), exact = whole(wide);
      for (const int ranks : {1, 2, 3, 4})
        for (const Balance balance : kBalances) {
          if (ranks == 1 && balance != Balance::none) continue;
          SCOPED_TRACE(::testing::Message()
                       << ranks << " ranks, " << bounds.size() - 1 << " documents, " << bounds.back()
                       << " tokens, balance " << static_cast<int>(balance));
          const SequenceLayout layout(bounds, ranks, 64, balance, causal_pairs);
          expect_same(on_ranks(task, layout), expected, tolerance, &exact);
        }
    }
  }
}

TEST(LightningContext, TheReferenceIsThatOfOneRank) { expect_one_rank(at::kDouble, 1e-12); }

TEST(LightningContext, Float32IsThatOfOneRank) { expect_one_rank(at::kFloat, 2e-6); }

double error_of(const at::Tensor& found, const at::Tensor& exact) {
  return (found.to(at::kDouble) - exact).square().mean().sqrt().item<double>();
}

// Sums are rounded once, as on one rank.
TEST(LightningContext, BFloat16ErrsAsOneRankDoes) {
  for (const AttentionConfig& config : layers()) {
    for (const auto& bounds : {std::vector<int32_t>{0, 1500}, {0, 3, 3, 410, 777, 1009, 1010, 1500}}) {
      const Task task(config, bounds, at::kBFloat16), wide(config, bounds, at::kDouble, at::kBFloat16);
      const Results exact = whole(wide), alone = whole(task);
      for (const int ranks : {2, 3, 4})
        for (const Balance balance : kBalances) {
          SCOPED_TRACE(::testing::Message() << ranks << " ranks, " << bounds.size() - 1 << " documents");
          const Results found = on_ranks(task, {bounds, ranks, 64, balance, causal_pairs});
          for (size_t i = 0; i < exact.size(); ++i)
            EXPECT_LE(error_of(found[i].second, exact[i].second),
                      1.2 * error_of(alone[i].second, exact[i].second))
                << exact[i].first;
        }
    }
  }
}

TEST(LightningContext, EightSpansARank) {
  const std::vector<int32_t> bounds{0, 139, 147, 518, 521, 530, 984, 1433};
  const SequenceLayout layout(bounds, 3, 64, Balance::ptrr, causal_pairs);
  EXPECT_EQ(layout.spans().size(), 24U);
  const Task task(LightningConfig{}, bounds, at::kFloat, at::kFloat),
      wide(LightningConfig{}, bounds, at::kDouble, at::kFloat);
  const Results exact = whole(wide);
  expect_same(on_ranks(task, layout), whole(task), 2e-6, &exact);
}

// What is sent is the closed formula of layers/attention/common/context/scan.h, to the byte, whatever the
// length: for one document in as many spans as ranks, at rank 0, (P - 1) / P H (2 Dk Dv + 1) numbers; at
// none two states.
TEST(LightningContext, SendsStatesAlone) {
  const int64_t heads = small_site().num_heads, dk = 2 * small_site().head_dim, dv = small_site().head_dim;
  for (const int ranks : {2, 3, 4})
    for (const int32_t tokens : {2048, 32768}) {
      if (ranks == 3 && tokens > 2048) continue;
      SCOPED_TRACE(::testing::Message() << ranks << " ranks, " << tokens << " tokens");
      const Task task(LightningConfig{}, {0, tokens}, at::kFloat);
      const SequenceLayout layout(task.bounds, ranks, 64, Balance::none, causal_pairs);
      run_ranks(ranks, [&](const Group& group) {
        shared(task, layout, group);
        const int64_t rank = group->rank(), mine = heads * (rank + 1) / ranks - heads * rank / ranks,
                      leaving = rank + 1 < ranks ? 1 : 0, entering = rank > 0 ? 1 : 0, all = ranks - 1;
        const int64_t forward = leaving * (heads - mine) * (dk * dv + 1) + (all - entering) * mine * dk * dv,
                      backward = entering * (heads - mine) * dk * dv + (all - leaving) * mine * dk * dv;
        // Two forward passes, one of them without a tape.
        EXPECT_EQ(group->traffic().at("lightning").bytes, 2 * 4 * forward);
        EXPECT_EQ(group->traffic().at("lightning.backward").bytes, 4 * backward);
        EXPECT_EQ(group->traffic().size(), 2U);
        EXPECT_LT(std::max(forward, backward), 2 * heads * dk * dv);
        if (rank == 0 && heads % ranks == 0) {
          EXPECT_EQ(forward, (ranks - 1) * heads / ranks * (2 * dk * dv + 1));
        }
      });
    }
}

// Under recomputation the backward pass runs the forward exchanges again, on all ranks in the same order.
TEST(LightningContext, RecomputedItHasTheSameBits) {
  const Task task(LightningConfig{}, {0, 3, 3, 140, 250, 271, 272, 400}, at::kFloat);
  const SequenceLayout layout(task.bounds, 3, 64, Balance::headtail, causal_pairs);
  run_ranks(
      3,
      [&](const Group& ranks) {
        const Results plain = shared(task, layout, ranks);
        const auto module = build(task.config, task.implementation);
        const Batch batch = own_batch(task, layout, ranks);
        const at::Tensor x = owned(layout, ranks->rank(), task.x).clone().requires_grad_(true);
        const auto layer = [&](const Tensors& in) -> Tensors { return {module->forward(in[0], batch).y}; };
        const at::Tensor y = recomputed(layer, {x}, module->parameters())[0];
        y.backward(owned(layout, ranks->rank(), task.dy));
        EXPECT_TRUE(y.equal(plain[0].second) && x.grad().equal(plain[1].second));
        size_t i = 2;
        for (const at::Tensor& parameter : module->parameters())
          EXPECT_TRUE(parameter.grad().equal(plain[i++].second)) << plain[i - 1].first;
      },
      kPatient);
}

TEST(LightningContext, OverGloo) {
  const std::vector<int32_t> bounds{0, 3, 3, 410, 777, 1009, 1010, 1500};
  const Task task(LightningConfig{}, bounds, at::kFloat, at::kFloat),
      wide(LightningConfig{}, bounds, at::kDouble, at::kFloat);
  const Results expected = whole(task), exact = whole(wide);
  for (const int ranks : {2, 3}) {
    const SequenceLayout layout(bounds, ranks, 64, Balance::headtail, causal_pairs);
    std::vector<Results> runs(static_cast<size_t>(ranks));
    run_gloo_ranks(
        ranks,
        [&](const Group& group) { runs[static_cast<size_t>(group->rank())] = shared(task, layout, group); },
        kPatient);
    expect_same(joined(layout, runs), expected, 2e-6, &exact);
  }
}

}  // namespace
}  // namespace longreach::test
