// What can be benchmarked. A case is one function in a small file of its own and one line in bench_cases().
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "train/bench/setting.h"

namespace longreach::bench {

// (q [B, Tq, H, D], k [B, Tk, HK, D], v [B, Tk, HK, D]) -> o [B, Tq, H, D], differentiable.
using AttentionFunction = std::function<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&)>;

struct BenchCase {
  std::string name, help;
  // Our fused operator, Tq = Tk.
  AttentionFunction fused;
  // The function itself, any dtype, for the last Tq of Tk positions: causal, so that a few rows can be
  // checked in float64 at any length.
  AttentionFunction reference;
  // Multiply-adds counted as two that no implementation can do without: the rate that must stay under the
  // peak.
  std::function<double(const Setting&)> flops;
  // Results and states that the operator's header documents beside o and the gradients, in bytes.
  std::function<int64_t(const Setting&)> state_bytes;
  // Whether it is plain causal softmax attention: the function of PyTorch's scaled_dot_product_attention.
  bool is_causal_softmax = false;
  // What a peer in another process must know, by number of heads: {"kind":
  // "causal"|"window"|"decay"|"blocks", ...}.
  std::function<nlohmann::json(int64_t)> for_peers;
};

BenchCase interval_attention_case();
BenchCase sliding_case();
BenchCase lightning_case();
BenchCase block_attention_case();

// Pairs of a query and a key that dense causal attention has, over those of block_attention_case().
double causal_over_listed_pairs(int64_t tokens);

// The closed list.
std::vector<BenchCase> bench_cases();
// Throws UserError that names the nearest.
const BenchCase& find_case(const std::vector<BenchCase>& cases, const std::string& name);

// Inputs of one setting, the same for the same seed: normal values, and the gradient of o.
struct Problem {
  at::Tensor q, k, v, grad_o;
  int64_t bytes_of_results() const;  // o, dq, dk, dv
};
Problem make_problem(const Setting& setting);

at::ScalarType scalar_type(const std::string& dtype);

// Softmax attention's least operations: 4 D per visible pair forward (q k^T and p v), and 10 D backward
// (scores again, dv, dp, dq, dk).
double softmax_flops(const Setting& setting, int64_t window);

}  // namespace longreach::bench
