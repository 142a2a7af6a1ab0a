#include "tests/support/attention/context_checks.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "distributed/mesh.h"
#include "distributed/threads.h"
#include "layers/attention/attention.h"
#include "layers/attention/common/context/places.h"
#include "layers/basic/rope_documents.h"
#include "tests/distributed/gloo_ranks.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {
namespace {

// What a layer gives for a row, or for a rank's part of it.
struct Outcome {
  at::Tensor y, dx;
  double losses = 0;
  std::vector<std::pair<std::string, at::Tensor>> gradients;  // of parameters
};

struct Numbers {
  at::ScalarType inputs = at::kFloat;
  Implementation implementation = Implementation::fused;
  std::string neutral = {};  // ContextTolerance
};

// Multiples of 1/16: products with such numbers, and their sums, are exact. Libraries sum in an order that
// depends on how many rows there are; a projection on some of the tokens must not differ for that.
at::Tensor coarse(const at::Tensor& x) { return (x * 16.0).round() / 16.0; }

// Each output is one input.
at::Tensor choice(const at::Tensor& like) {
  const at::Tensor weight = at::zeros_like(like);
  for (int64_t row = 0; row < weight.size(0); ++row)
    weight.select(0, row).select(0, row * 5 % weight.size(1)).fill_(1.0);
  return weight;
}

std::shared_ptr<Attention> build(const AttentionConfig& config, LayerSite site, const Numbers& numbers) {
  site.implementation = numbers.implementation;
  const auto module = make_attention(config, site);
  const at::NoGradGuard no_grad;
  uint64_t seed = 900;  // norms and thetas leave their neutral values
  for (auto& item : module->named_parameters()) {
    at::Tensor& parameter = item.value();
    if (!numbers.neutral.empty() && item.key().starts_with(numbers.neutral)) {
      parameter.zero_();
      continue;
    }
    parameter.copy_(item.key() == "o_proj.weight"
                        ? choice(parameter)
                        : coarse(parameter + normal(parameter.sizes(), seed++, at::kFloat) * 0.05));
  }
  if (numbers.inputs == at::kDouble) module->to(at::kDouble);
  return module;
}

// between: what to do between the two passes.
Outcome run(Attention& module, const at::Tensor& x_of_row, const at::Tensor& dy, const Batch& batch,
            const std::function<void()>& between = nullptr) {
  const at::Tensor x = x_of_row.detach().clone().requires_grad_(true);
  const AttentionOutput out = module.forward(x, batch);
  at::Tensor total = (out.y.to(at::kDouble) * dy.to(at::kDouble)).sum();
  Outcome outcome;
  for (const auto& [name, loss] : out.losses) {
    total = total + loss.to(at::kDouble);
    outcome.losses += loss.item<double>();
  }
  if (between) between();
  total.backward();
  outcome.y = out.y.detach();
  outcome.dx = x.grad();
  for (const auto& item : module.named_parameters()) {
    const at::Tensor gradient = item.value().grad();
    outcome.gradients.emplace_back(item.key(), gradient.defined() ? gradient : at::zeros_like(item.value()));
  }
  return outcome;
}

using OnRank = std::function<void(const Group& ranks)>;
using RunRanks = std::function<void(int size, const OnRank& body)>;

void as_threads(int size, const OnRank& body) { run_ranks(size, body); }

class Comparison {
 public:
  Comparison(const AttentionConfig& config, const LayerSite& site, const ContextCase& a_case)
      : config_(config), site_(site), case_(a_case), cu_seqlens_(at::tensor(a_case.cu_seqlens, at::kInt)) {
    const int64_t tokens = a_case.cu_seqlens.back();
    x_ = coarse(normal({1, tokens, site.hidden_size}, 31));
    dy_ = coarse(normal({1, tokens, site.hidden_size}, 32));
  }

  Outcome on_one_rank(const Numbers& numbers) const {
    const auto module = build(config_, site_, numbers);
    return run(*module, x_.to(numbers.inputs), dy_.to(numbers.inputs),
               {.positions = document_positions(cu_seqlens_), .cu_seqlens = cu_seqlens_});
  }

  Outcome on_ranks(const Numbers& numbers, const RunRanks& run_all = as_threads,
                   std::vector<ContextTraffic>* traffic = nullptr) const {
    std::vector<Outcome> parts(static_cast<size_t>(case_.ranks));
    std::vector<at::Tensor> tokens(parts.size());
    run_all(case_.ranks, [&](const Group& ranks) {
      const auto rank = static_cast<size_t>(ranks->rank());
      const Mesh mesh{.context = ranks, .heads = groups_of_heads(ranks)};
      const int64_t grain = context_grain({{.config = config_}});
      const auto context = std::make_shared<const ContextGroup>(
          ranks, SequenceLayout(case_.cu_seqlens, case_.ranks, grain, case_.balance, causal_pairs),
          case_.neighbours > 1 ? ContextMethod::heads : ContextMethod::fetch, mesh.heads);
      tokens[rank] = own_tokens(*context);
      const auto own = [&](const at::Tensor& x) { return x.index_select(1, tokens[rank]); };
      const auto module = build(config_, site_, numbers);
      parts[rank] = run(*module, own(x_.to(numbers.inputs)), own(dy_.to(numbers.inputs)),
                        {.positions = own(document_positions(cu_seqlens_)), .context = context}, [&] {
                          if (traffic) (*traffic)[rank].forward = take_traffic(mesh);
                        });
      if (traffic) (*traffic)[rank].backward = take_traffic(mesh);
    });
    return joined(parts, tokens);
  }

 private:
  std::vector<HeadGroup> groups_of_heads(const Group& ranks) const {
    std::vector<HeadGroup> groups;
    if (case_.neighbours == 1) return groups;
    for (const HeadGroup& group : head_groups(ranks, ContextMethod::automatic))
      if (group.neighbours->size() == case_.neighbours) groups.push_back(group);
    return groups;
  }

  Outcome joined(const std::vector<Outcome>& parts, const std::vector<at::Tensor>& tokens) const {
    Outcome whole{.y = at::zeros(x_.sizes(), parts[0].y.options()),
                  .dx = at::zeros(x_.sizes(), parts[0].dx.options())};
    for (size_t rank = 0; rank < parts.size(); ++rank) {
      whole.y.index_copy_(1, tokens[rank], parts[rank].y);
      whole.dx.index_copy_(1, tokens[rank], parts[rank].dx);
      whole.losses += parts[rank].losses;
      for (size_t i = 0; i < parts[rank].gradients.size(); ++i) {
        const auto& [name, gradient] = parts[rank].gradients[i];
        if (rank == 0)
          whole.gradients.emplace_back(name, gradient.clone());
        else
          whole.gradients[i].second.add_(gradient);
      }
    }
    return whole;
  }

  const AttentionConfig& config_;
  const LayerSite& site_;
  const ContextCase& case_;
  at::Tensor cu_seqlens_, x_, dy_;
};

double size_of(const at::Tensor& x) {
  return x.numel() == 0 ? 0.0 : x.to(at::kDouble).square().mean().sqrt().item<double>();
}
double error_of(const at::Tensor& found, const at::Tensor& expected) {
  return size_of(found.to(at::kDouble) - expected.to(at::kDouble));
}

// The gradients of an outcome under their names.
std::vector<std::pair<std::string, at::Tensor>> gradients_of(const Outcome& outcome) {
  std::vector<std::pair<std::string, at::Tensor>> all{{"x", outcome.dx}};
  all.insert(all.end(), outcome.gradients.begin(), outcome.gradients.end());
  return all;
}

// A gradient can be zero (a window of one key): what is left is rounding of the terms, which are of the size
// of others.
void expect_close(const Outcome& found, const Outcome& expected, double output, double gradient) {
  EXPECT_LE(error_of(found.y, expected.y), output * size_of(expected.y)) << "y";
  EXPECT_NEAR(found.losses, expected.losses, output * (std::abs(expected.losses) + 1e-3));
  const auto all = gradients_of(found), wanted = gradients_of(expected);
  ASSERT_EQ(all.size(), wanted.size());
  double largest = 0;
  for (const auto& [name, tensor] : wanted) largest = std::max(largest, size_of(tensor));
  for (size_t i = 0; i < all.size(); ++i)
    EXPECT_LE(error_of(all[i].second, wanted[i].second),
              gradient * (size_of(wanted[i].second) + 0.1 * largest))
        << "gradient of " << all[i].first << ", RMS " << size_of(wanted[i].second);
}

// Squares of errors against exact numbers, of all cases together: those of one are few for a comparison of
// roundings.
class RoundingErrors {
 public:
  void add(const Outcome& found, const Outcome& one, const Outcome& exact) {
    add("y", found.y, one.y, exact.y);
    const auto all = gradients_of(found), of_one = gradients_of(one), wanted = gradients_of(exact);
    for (size_t i = 0; i < all.size(); ++i)
      add("gradient of " + all[i].first, all[i].second, of_one[i].second, wanted[i].second);
  }
  void expect_ratio(double factor) const {
    for (const auto& [name, errors] : errors_)
      EXPECT_LE(std::sqrt(errors.first), factor * std::sqrt(errors.second) + 1e-6) << name;
  }

 private:
  void add(const std::string& name, const at::Tensor& found, const at::Tensor& one, const at::Tensor& exact) {
    const double size = size_of(exact);
    if (size == 0) return;
    auto& [of_ranks, of_one] = errors_[name];
    of_ranks += std::pow(error_of(found, exact) / size, 2);
    of_one += std::pow(error_of(one, exact) / size, 2);
  }
  std::map<std::string, std::pair<double, double>> errors_;
};

std::vector<int32_t> bounds_of(const std::vector<int32_t>& lengths) {
  std::vector<int32_t> bounds{0};
  for (const int32_t length : lengths) bounds.push_back(bounds.back() + length);
  return bounds;
}

std::string described(const ContextCase& a_case) {
  std::string name = text(a_case.ranks, " ranks, heads shared by ", a_case.neighbours, ", balance ",
                          static_cast<int>(a_case.balance), ", bounds");
  for (const int32_t bound : a_case.cu_seqlens) name += text(" ", bound);
  return name;
}

}  // namespace

namespace {

const std::vector<int32_t> kOneDocument{0, 700}, kRows{0, 150, 300, 450, 600};
const std::vector<int32_t> kPacked = bounds_of({37, 301, 1, 0, 64, 129, 1, 1, 90, 45});

}  // namespace

std::vector<ContextCase> all_context_cases() {
  std::vector<ContextCase> cases;
  for (const auto& bounds : {bounds_of({1}), bounds_of({63}), bounds_of({130}), kOneDocument, kRows, kPacked})
    for (int ranks = 1; ranks <= 4; ++ranks)
      for (const Balance balance : {Balance::none, Balance::headtail, Balance::ptrr})
        if (ranks > 1 || balance == Balance::none) cases.push_back({bounds, ranks, balance});
  return cases;
}

std::vector<ContextCase> some_context_cases() {
  return {{bounds_of({63}), 2, Balance::none}, {kOneDocument, 2, Balance::headtail},
          {kOneDocument, 4, Balance::none},    {kRows, 3, Balance::headtail},
          {kPacked, 2, Balance::none},         {kPacked, 4, Balance::ptrr}};
}

std::vector<ContextCase> head_context_cases() {
  return {{bounds_of({63}), 2, Balance::none, 2},
          {kPacked, 2, Balance::ptrr, 2},
          {kOneDocument, 4, Balance::headtail, 2}};
}

void expect_context_equals_one_rank(const AttentionConfig& config, const LayerSite& site,
                                    const std::vector<ContextCase>& cases,
                                    const ContextTolerance& tolerance) {
  RoundingErrors bfloat16_errors;
  for (const ContextCase& a_case : cases) {
    SCOPED_TRACE(described(a_case));
    const Comparison comparison(config, site, a_case);
    const Numbers float64{at::kDouble, Implementation::reference, tolerance.neutral},
        float32{at::kFloat, Implementation::fused, tolerance.neutral},
        bfloat16{at::kBFloat16, Implementation::fused, tolerance.neutral};
    const Outcome exact = comparison.on_one_rank(float64);
    expect_close(comparison.on_ranks(float64), exact, 1e-12, 1e-12);
    for (const Numbers& numbers : {float32, bfloat16}) {
      SCOPED_TRACE(at::toString(numbers.inputs));
      const Outcome one = comparison.on_one_rank(numbers), found = comparison.on_ranks(numbers);
      if (tolerance.same_bits) {
        EXPECT_TRUE(found.y.equal(one.y)) << "y: " << error_of(found.y, one.y);
      }
      if (numbers.inputs == at::kFloat)
        expect_close(found, one, tolerance.output, tolerance.gradient);
      else
        bfloat16_errors.add(found, one, exact);
    }
    if (testing::Test::HasFailure()) return;
  }
  bfloat16_errors.expect_ratio(tolerance.bfloat16);
}

std::vector<ContextTraffic> context_traffic(const AttentionConfig& config, const LayerSite& site,
                                            const ContextCase& a_case) {
  std::vector<ContextTraffic> traffic(static_cast<size_t>(a_case.ranks));
  Comparison(config, site, a_case).on_ranks({}, as_threads, &traffic);
  return traffic;
}

int64_t bytes_of(const Traffic& traffic, const std::string& label) {
  const auto found = traffic.find(label);
  return found == traffic.end() ? 0 : found->second.bytes;
}

void expect_context_over_gloo(const AttentionConfig& config, const LayerSite& site) {
  const auto over_gloo = [](int size, const OnRank& body) { run_gloo_ranks(size, body); };
  for (const int ranks : {2, 3}) {
    const ContextCase a_case{kPacked, ranks, Balance::ptrr};
    SCOPED_TRACE(described(a_case));
    const Comparison comparison(config, site, a_case);
    const Outcome found = comparison.on_ranks({}, over_gloo), threads = comparison.on_ranks({});
    EXPECT_TRUE(found.y.equal(threads.y));
    expect_close(found, comparison.on_one_rank({}), 2e-6, 2e-6);
  }
}

}  // namespace longreach::test
