// Checks of results against float64 references and of rates against the machine's peak.
#include "train/bench/agreement.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace longreach::bench {
namespace {

constexpr double kRowLimit = 1e-4, kAgreeingRows = 0.99;

double mean_square(const at::Tensor& x) { return x.numel() == 0 ? 0 : x.pow(2).mean().item<double>(); }

struct Difference {
  double relative = 0, root_mean_square = 0;
};

Difference difference(const at::Tensor& found, const at::Tensor& expected) {
  const at::Tensor reference = expected.to(at::kDouble);
  const double error = std::sqrt(mean_square(found.to(at::kDouble) - reference)),
               scale = std::sqrt(mean_square(reference));
  return {scale > 0 ? error / scale : error, error};
}

double base_limit(at::ScalarType dtype) { return dtype == at::kBFloat16 ? 1e-2 : 5e-6; }

double absolute_floor(const Problem& problem) {
  const auto largest = [](const at::Tensor& x) { return x.numel() ? x.abs().max().item<double>() : 0.0; };
  return 1e-6 * std::max({1.0, largest(problem.q), largest(problem.k), largest(problem.v)});
}

// NaN compares false and is refused.
bool within(const Difference& found, double limit, double floor) {
  return found.relative <= limit || found.root_mean_square <= floor;
}

// The reference's rows [begin, end), which see keys below `end` only.
Result reference_rows(const Problem& problem, const AttentionFunction& reference, int64_t begin, int64_t end,
                      at::ScalarType dtype, bool backward) {
  const auto leaf = [&](const at::Tensor& x, int64_t from) {
    return x.slice(1, from, end).to(dtype).detach().clone().requires_grad_(backward);
  };
  const at::Tensor q = leaf(problem.q, begin), k = leaf(problem.k, 0), v = leaf(problem.v, 0);
  const at::AutoGradMode recording(backward);
  Result rows;
  rows.o = reference(q, k, v);
  if (!backward) return rows;
  rows.o.backward(problem.grad_o.slice(1, begin, end).to(dtype));
  rows.o = rows.o.detach();
  rows.dq = q.grad();
  // The keys of these rows have no other queries when the rows are the last; the caller compares them then
  // only.
  rows.dk = k.grad().slice(1, begin, end);
  rows.dv = v.grad().slice(1, begin, end);
  return rows;
}

// Rows a stretch: few enough that float64 scores stay near 64 MiB.
int64_t stretch_rows(const Problem& problem) {
  const int64_t tokens = problem.q.size(1), heads = problem.q.size(0) * problem.q.size(2);
  return std::min(tokens, std::max<int64_t>(8, (int64_t{1} << 23) / std::max<int64_t>(1, tokens * heads)));
}

}  // namespace

double require_reference(const std::string& who, const Result& result, const Problem& problem,
                         const AttentionFunction& reference, bool backward) {
  const int64_t tokens = problem.q.size(1), rows = stretch_rows(problem);
  const at::ScalarType dtype = problem.q.scalar_type();
  const double floor = absolute_floor(problem);
  double worst = 0;
  for (const int64_t begin : std::set<int64_t>{0, (tokens - rows) / 2, tokens - rows}) {
    const int64_t end = begin + rows;
    const Result exact = reference_rows(problem, reference, begin, end, at::kDouble, backward);
    const Result rounded = reference_rows(problem, reference, begin, end, dtype, backward);
    const auto compare = [&](const char* name, const at::Tensor& found, const at::Tensor& right,
                             const at::Tensor& own) {
      check<Refusal>(found.defined(), who, ": no ", name);
      const Difference error = difference(found.slice(1, begin, end), right);
      const double limit = std::max(base_limit(dtype), 2 * difference(own, right).relative);
      check<Refusal>(within(error, limit, floor), who, ": ", name,
                     " disagrees with the float64 reference in rows ", begin, "..", end - 1,
                     ": relative error ", error.relative, ", allowed ", limit);
      worst = std::max(worst, error.relative);
    };
    compare("o", result.o, exact.o, rounded.o);
    if (!backward) continue;
    compare("dq", result.dq, exact.dq, rounded.dq);
    if (end < tokens) continue;
    compare("dk", result.dk, exact.dk, rounded.dk);
    compare("dv", result.dv, exact.dv, rounded.dv);
  }
  return worst;
}

void require_same(const std::string& ours, const Result& a, const std::string& peer, const Result& b,
                  const Problem& problem, bool backward) {
  const double limit = 2 * base_limit(problem.q.scalar_type()), floor = 2 * absolute_floor(problem);
  const auto compare = [&](const char* name, const at::Tensor& mine, const at::Tensor& theirs) {
    const Difference error = difference(mine, theirs);
    check<Refusal>(within(error, limit, floor), ours, " and ", peer, " disagree on ", name,
                   ": relative difference ", error.relative, ", allowed ", limit);
  };
  compare("o", a.o, b.o);
  if (!backward) return;
  compare("dq", a.dq, b.dq);
  compare("dk", a.dk, b.dk);
  compare("dv", a.dv, b.dv);
}

double require_rows(const std::string& who, const char* what, const at::Tensor& found,
                    const at::Tensor& right) {
  const at::Tensor exact = right.to(at::kDouble);
  const double usual = std::sqrt(mean_square(exact) * static_cast<double>(exact.size(-1)));
  const at::Tensor scale = exact.norm(2, -1).clamp_min(1e-3 * usual);
  const at::Tensor errors =
      std::get<0>(((found.to(at::kDouble) - exact).norm(2, -1) / scale).flatten().sort());
  const auto last = static_cast<int64_t>(kAgreeingRows * static_cast<double>(errors.numel() - 1));
  const auto error = errors[last].item<double>();
  check<Refusal>(error <= kRowLimit, who, ": ", what,
                 " disagrees with the float64 reference: relative error ", error, " in its rows, allowed ",
                 kRowLimit);
  return error;
}

double require_possible_rate(const std::string& who, double flops, double seconds, double peak_of_thread,
                             int threads) {
  if (peak_of_thread <= 0) return 0;
  const double share = flops / seconds / (peak_of_thread * threads);
  check<Refusal>(share <= 1.1, who, ": ", 1e-9 * flops / seconds, " GFLOP/s is above this machine's peak of ",
                 1e-9 * peak_of_thread * threads, " with ", threads, " thread(s): the measurement is wrong");
  return share;
}

}  // namespace longreach::bench
