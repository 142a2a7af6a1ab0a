// The closed list of cases, and what they share.
#include "train/bench/bench_case.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "core/error.h"

namespace longreach::bench {

std::vector<BenchCase> bench_cases() {
  return {interval_attention_case(), sliding_case(), block_attention_case(), lightning_case()};
}

const BenchCase& find_case(const std::vector<BenchCase>& cases, const std::string& name) {
  std::vector<std::string> names;
  for (const BenchCase& one : cases) {
    if (one.name == name) return one;
    names.push_back(one.name);
  }
  throw UserError(one_line(
      text("bench: unknown name `", name, "`", did_you_mean(name, names), "; known: ", join(names))));
}

at::ScalarType scalar_type(const std::string& dtype) {
  if (dtype == "float32") return at::kFloat;
  check(dtype == "bfloat16", "--dtype: found `", one_line(dtype), "`, allowed: float32, bfloat16");
  return at::kBFloat16;
}

Problem make_problem(const Setting& setting) {
  auto generator = at::detail::createCPUGenerator(42);
  const auto normal = [&](int64_t heads) {
    at::Tensor values = at::empty({setting.batch, setting.tokens, heads, setting.head_dim}, at::kFloat);
    return values.normal_(0.0, 1.0, generator).to(scalar_type(setting.dtype));
  };
  Problem problem;
  problem.q = normal(setting.heads);
  problem.k = normal(setting.kv_heads);
  problem.v = normal(setting.kv_heads);
  problem.grad_o = normal(setting.heads);
  return problem;
}

int64_t Problem::bytes_of_results() const {
  return static_cast<int64_t>(grad_o.nbytes() + q.nbytes() + k.nbytes() + v.nbytes());
}

double softmax_flops(const Setting& setting, int64_t window) {
  const auto tokens = static_cast<double>(setting.tokens);
  const double width = window > 0 ? std::min(static_cast<double>(window), tokens) : tokens;
  // The first `width` queries see 1, 2, ..., width keys, the others width.
  const double pairs = width * (width + 1) / 2 + (tokens - width) * width;
  const auto heads = static_cast<double>(setting.batch * setting.heads);
  return heads * pairs * static_cast<double>(setting.head_dim) * (setting.backward() ? 14 : 4);
}

}  // namespace longreach::bench
