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
#include <set>

#include "distributed/absent_rank.h"
#include "distributed/mesh.h"
#include "distributed/threads.h"
#include "layers/attention/attention.h"
#include "layers/attention/common/context/places.h"
#include "layers/attention/planned_traffic.h"
#include "layers/basic/rope_documents.h"
#include "layers/ops/common/recompute.h"
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

// How a layer is run.
struct Pass {
  bool recompute = false;
  // What to do between the two passes; null: what a pass without a tape gives is compared.
  std::function<void()> between = nullptr;
};

AttentionOutput forward_of(Attention& module, const at::Tensor& x, const Batch& batch, bool recompute) {
  if (!recompute) return module.forward(x, batch);
  const auto layer = [&](const Tensors& in) {
    const AttentionOutput out = module.forward(in[0], batch);
    Tensors all{out.y};
    for (const auto& [name, loss] : out.losses) all.push_back(loss);
    return all;
  };
  const Tensors all = recomputed(layer, {x}, module.parameters());
  AttentionOutput out{.y = all[0]};
  for (size_t i = 1; i < all.size(); ++i) out.losses.emplace_back(text("loss ", i), all[i]);
  return out;
}

Outcome run(Attention& module, const at::Tensor& x_of_row, const at::Tensor& dy, const Batch& batch,
            const Pass& pass = {}) {
  const at::Tensor x = x_of_row.detach().clone().requires_grad_(true);
  const AttentionOutput out = forward_of(module, x, batch, pass.recompute);
  at::Tensor total = (out.y.to(at::kDouble) * dy.to(at::kDouble)).sum();
  Outcome outcome;
  for (const auto& [name, loss] : out.losses) {
    total = total + loss.to(at::kDouble);
    outcome.losses += loss.item<double>();
  }
  if (pass.between) {
    pass.between();
  } else {
    const at::NoGradGuard no_grad;
    EXPECT_TRUE(module.forward(x, batch).y.equal(out.y)) << "without a tape";
  }
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
void as_threads_that_check(int size, const OnRank& body) { run_ranks(size, body, {.check = true}); }

std::vector<HeadGroup> groups_of_heads(const Group& ranks, int neighbours) {
  std::vector<HeadGroup> groups;
  if (neighbours == 1) return groups;
  for (const HeadGroup& group : head_groups(ranks, ContextMethod::automatic))
    if (neighbours == 0 || group.neighbours->size() == neighbours) groups.push_back(group);
  return groups;
}

std::shared_ptr<const ContextGroup> context_of(const AttentionConfig& config, const ContextCase& a_case,
                                               const Mesh& mesh) {
  return std::make_shared<const ContextGroup>(
      mesh.context,
      SequenceLayout(a_case.cu_seqlens, a_case.ranks, context_grain({{.config = config}}), a_case.balance,
                     causal_pairs),
      a_case.neighbours == 0   ? ContextMethod::automatic
      : a_case.neighbours == 1 ? ContextMethod::fetch
                               : ContextMethod::heads,
      mesh.heads);
}

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

  Outcome on_ranks(const Numbers& numbers, const RunRanks& run_all = as_threads_that_check) const {
    std::vector<at::Tensor> tokens;
    const std::vector<Outcome> parts = parts_of_ranks(numbers, run_all, false, nullptr, &tokens);
    return joined(parts, tokens);
  }

  // traffic, tokens: null, or where to leave what each rank has sent, and which tokens it has.
  std::vector<Outcome> parts_of_ranks(const Numbers& numbers, const RunRanks& run_all, bool recompute,
                                      std::vector<ContextTraffic>* traffic,
                                      std::vector<at::Tensor>* tokens = nullptr) const {
    std::vector<Outcome> parts(static_cast<size_t>(case_.ranks));
    std::vector<at::Tensor> of_ranks(parts.size());
    run_all(case_.ranks, [&](const Group& ranks) {
      const auto rank = static_cast<size_t>(ranks->rank());
      const Mesh mesh{.context = ranks, .heads = groups_of_heads(ranks, case_.neighbours)};
      const auto context = context_of(config_, case_, mesh);
      of_ranks[rank] = own_tokens(*context);
      const auto own = [&](const at::Tensor& x) { return x.index_select(1, of_ranks[rank]); };
      const auto module = build(config_, site_, numbers);
      Pass pass{.recompute = recompute};
      if (traffic) pass.between = [&] { (*traffic)[rank].forward = take_traffic(mesh); };
      parts[rank] = run(*module, own(x_.to(numbers.inputs)), own(dy_.to(numbers.inputs)),
                        {.positions = own(document_positions(cu_seqlens_)), .context = context}, pass);
      if (traffic) (*traffic)[rank].backward = take_traffic(mesh);
    });
    if (tokens) *tokens = of_ranks;
    return parts;
  }

 private:
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

double largest_of(const at::Tensor& x) {
  return x.numel() == 0 ? 0.0 : x.to(at::kDouble).abs().max().item<double>();
}

// ContextTolerance::by_entry.
void expect_close_by_entry(const Outcome& found, const Outcome& expected, const Outcome& exact,
                           double tolerance) {
  const auto compare = [&](const std::string& name, const at::Tensor& x, const at::Tensor& of_one,
                           const at::Tensor& of_exact) {
    ASSERT_EQ(x.sizes(), of_one.sizes()) << name;
    const at::Tensor one = of_one.to(at::kDouble);
    EXPECT_LE(largest_of(x.to(at::kDouble) - one),
              std::max(tolerance * largest_of(one), 2 * largest_of(one - of_exact)))
        << name;
  };
  compare("y", found.y, expected.y, exact.y);
  const auto all = gradients_of(found), wanted = gradients_of(expected), exactly = gradients_of(exact);
  ASSERT_EQ(all.size(), wanted.size());
  for (size_t i = 0; i < all.size(); ++i)
    compare("gradient of " + all[i].first, all[i].second, wanted[i].second, exactly[i].second);
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

void expect_equal(const Outcome& found, const Outcome& expected, const Outcome& exact, double output,
                  double gradient, bool by_entry) {
  if (by_entry)
    expect_close_by_entry(found, expected, exact, std::min(output, gradient));
  else
    expect_close(found, expected, output, gradient);
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

const std::vector<int32_t> kOneDocument{0, 700}, kRows{0, 150, 300, 450, 600};
const std::vector<int32_t> kPacked = bounds_of({37, 301, 1, 0, 64, 129, 1, 1, 90, 45});

// What one rank gives of a row, however many ranks it is compared with.
struct OneRank {
  Outcome float64, float32, bfloat16;
};

struct AllNumbers {
  explicit AllNumbers(const std::string& neutral)
      : float64{at::kDouble, Implementation::reference, neutral},
        float32{at::kFloat, Implementation::fused, neutral},
        bfloat16{at::kBFloat16, Implementation::fused, neutral} {}
  Numbers float64, float32, bfloat16;
};

}  // namespace

std::vector<ContextCase> context_cases_of(const std::vector<std::vector<int32_t>>& rows) {
  std::vector<ContextCase> cases;
  for (const auto& bounds : rows)
    for (int ranks = 1; ranks <= 4; ++ranks)
      for (const Balance balance : {Balance::none, Balance::headtail, Balance::ptrr})
        if (ranks > 1 || balance == Balance::none) cases.push_back({bounds, ranks, balance});
  return cases;
}

std::vector<ContextCase> all_context_cases() {
  return context_cases_of({bounds_of({1}), bounds_of({63}), bounds_of({130}), kOneDocument, kRows, kPacked});
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
  const AllNumbers numbers(tolerance.neutral);
  std::map<std::vector<int32_t>, OneRank> of_one_rank;
  RoundingErrors bfloat16_errors;
  const auto expect_bits = [&](const Outcome& found, const Outcome& one, const char* dtype) {
    if (tolerance.same_bits) {
      EXPECT_TRUE(found.y.equal(one.y)) << dtype << " y: " << error_of(found.y, one.y);
    }
  };
  for (const ContextCase& a_case : cases) {
    SCOPED_TRACE(described(a_case));
    const Comparison comparison(config, site, a_case);
    const auto [known, is_new] = of_one_rank.try_emplace(a_case.cu_seqlens);
    OneRank& one = known->second;
    if (is_new)
      one = {comparison.on_one_rank(numbers.float64), comparison.on_one_rank(numbers.float32),
             comparison.on_one_rank(numbers.bfloat16)};
    const Outcome float64 = comparison.on_ranks(numbers.float64),
                  float32 = comparison.on_ranks(numbers.float32),
                  bfloat16 = comparison.on_ranks(numbers.bfloat16);
    expect_equal(float64, one.float64, one.float64, 1e-12, 1e-12, tolerance.by_entry);
    expect_bits(float32, one.float32, "float32");
    expect_equal(float32, one.float32, one.float64, tolerance.output, tolerance.gradient, tolerance.by_entry);
    expect_bits(bfloat16, one.bfloat16, "bfloat16");
    bfloat16_errors.add(bfloat16, one.bfloat16, one.float64);
    if (testing::Test::HasFailure()) return;
  }
  bfloat16_errors.expect_ratio(tolerance.bfloat16);
}

void expect_context_rounds_as_one_rank(const AttentionConfig& config, const LayerSite& site,
                                       const std::vector<ContextCase>& cases,
                                       const ContextTolerance& tolerance) {
  const AllNumbers numbers(tolerance.neutral);
  std::map<std::vector<int32_t>, OneRank> of_one_rank;
  for (const ContextCase& a_case : cases) {
    SCOPED_TRACE(described(a_case));
    const Comparison comparison(config, site, a_case);
    const auto [known, is_new] = of_one_rank.try_emplace(a_case.cu_seqlens);
    OneRank& one = known->second;
    if (is_new)
      one = {.float64 = comparison.on_one_rank(numbers.float64),
             .bfloat16 = comparison.on_one_rank(numbers.bfloat16)};
    RoundingErrors errors;
    errors.add(comparison.on_ranks(numbers.bfloat16), one.bfloat16, one.float64);
    errors.expect_ratio(tolerance.bfloat16);
  }
}

void expect_context_recomputes(const AttentionConfig& config, const LayerSite& site) {
  const ContextCase a_case{kPacked, 3, Balance::headtail};
  const Comparison comparison(config, site, a_case);
  const auto plain = comparison.parts_of_ranks({}, as_threads_that_check, false, nullptr),
             again = comparison.parts_of_ranks({}, as_threads_that_check, true, nullptr);
  for (size_t rank = 0; rank < plain.size(); ++rank) {
    SCOPED_TRACE(text("rank ", rank));
    EXPECT_TRUE(again[rank].y.equal(plain[rank].y));
    EXPECT_EQ(again[rank].losses, plain[rank].losses);
    const auto found = gradients_of(again[rank]), expected = gradients_of(plain[rank]);
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_TRUE(found[i].second.equal(expected[i].second)) << "gradient of " << expected[i].first;
  }
}

std::vector<ContextTraffic> context_traffic(const AttentionConfig& config, const LayerSite& site,
                                            const ContextCase& a_case, at::ScalarType dtype) {
  std::vector<ContextTraffic> traffic(static_cast<size_t>(a_case.ranks));
  Comparison(config, site, a_case).parts_of_ranks({.inputs = dtype}, as_threads, false, &traffic);
  return traffic;
}

int64_t bytes_of(const Traffic& traffic, const std::string& label) {
  const auto found = traffic.find(label);
  return found == traffic.end() ? 0 : found->second.bytes;
}

namespace {

// at_most: labels of which less may be sent.
void expect_planned(const std::map<std::string, int64_t>& planned, const Traffic& sent,
                    const std::set<std::string>& at_most) {
  std::set<std::string> labels;
  for (const auto& [label, bytes] : planned) labels.insert(label);
  for (const auto& [label, moved] : sent) labels.insert(label);
  for (const std::string& label : labels) {
    const auto found = planned.find(label);
    const int64_t bytes = found == planned.end() ? 0 : found->second;
    if (at_most.contains(label))
      EXPECT_LE(bytes_of(sent, label), bytes) << label;
    else
      EXPECT_EQ(bytes_of(sent, label), bytes) << label;
  }
}

}  // namespace

void expect_planned_traffic(const AttentionConfig& config, const LayerSite& site, bool all_chosen) {
  const auto module = make_attention(config, site);
  const auto* layer = dynamic_cast<const TrafficPlanner*>(module.get());
  ASSERT_NE(layer, nullptr) << kind_of(config) << " plans nothing";
  std::vector<ContextCase> cases = some_context_cases();
  for (const ContextCase& a_case : head_context_cases()) cases.push_back(a_case);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const ContextCase& a_case : cases) {
      SCOPED_TRACE(text(kind_of(config), ", ", at::toString(dtype), ", ", described(a_case)));
      const auto sent = context_traffic(config, site, a_case, dtype);
      for (int rank = 0; rank < a_case.ranks; ++rank) {
        const Group ranks = absent_rank(rank, a_case.ranks);
        const Mesh mesh{.context = ranks, .heads = groups_of_heads(ranks, a_case.neighbours)};
        const PlannedTraffic planned = layer->planned_traffic(context_of(config, a_case, mesh), dtype);
        std::set<std::string> at_most;
        if (!all_chosen && planned.forward.contains("chosen blocks")) at_most = {"keys", "keys gradients"};
        expect_planned(planned.forward, sent[static_cast<size_t>(rank)].forward, at_most);
        expect_planned(planned.backward, sent[static_cast<size_t>(rank)].backward, at_most);
      }
    }
}

void expect_context_over_gloo(const AttentionConfig& config, const LayerSite& site,
                              const ContextTolerance& tolerance) {
  const auto over_gloo = [](int size, const OnRank& body) { run_gloo_ranks(size, body, {.check = true}); };
  for (const int ranks : {2, 3}) {
    const ContextCase a_case{kPacked, ranks, Balance::ptrr};
    SCOPED_TRACE(described(a_case));
    const Comparison comparison(config, site, a_case);
    const Outcome found = comparison.on_ranks({}, over_gloo), threads = comparison.on_ranks({});
    EXPECT_TRUE(found.y.equal(threads.y));
    const Outcome exact = comparison.on_one_rank({at::kDouble, Implementation::reference});
    expect_equal(found, comparison.on_one_rank({}), exact, 2e-6, 2e-6, tolerance.by_entry);
  }
}

}  // namespace longreach::test
