// The decays of heads and layers. Papers, code and checkpoints disagree; README.md tells which is whose.
#include <ATen/ops/arange.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/tensor.h>

#include <cmath>

#include "core/error.h"
#include "layers/attention/lightning/lightning.h"

namespace longreach {
namespace {

// Press et al., arXiv 2108.12409: a geometric series; for other than powers of two, every second slope of the
// next power fills up.
std::vector<double> alibi_slopes(int64_t heads) {
  int64_t power = 1;
  while (2 * power <= heads) power *= 2;
  std::vector<double> slopes;
  for (int64_t h = 0; h < power; ++h)
    slopes.push_back(std::exp2(-8.0 * static_cast<double>(h + 1) / static_cast<double>(power)));
  for (int64_t h = 0; power + h < heads; ++h)
    slopes.push_back(std::exp2(-8.0 * static_cast<double>(2 * h + 1) / static_cast<double>(2 * power)));
  return slopes;
}

// In float32, as transformers makes them and MiniMax's checkpoints therefore use them.
at::Tensor minimax_slopes(int64_t heads, int64_t layer, int64_t layers) {
  const double base = 1.0 / std::exp2(8.0 / static_cast<double>(heads));
  const double depth = static_cast<double>(layer) / (static_cast<double>(layers - 1) + 1e-5);
  const at::Tensor exponent = at::arange(1, heads + 1, at::kLong);
  return at::pow(base, exponent).to(at::kFloat).mul(1.0 - depth + 1e-5);
}

}  // namespace

at::Tensor lightning_log_decay(const std::string& decay, int64_t heads, int64_t layer, int64_t layers) {
  const auto h_count = static_cast<double>(heads), l = static_cast<double>(layer),
             count = static_cast<double>(layers);
  std::vector<double> values(static_cast<size_t>(heads), 0.0);
  if (decay == "alibi") {
    values = alibi_slopes(heads);
    const double depth = layers > 1 ? l / (count - 1.0) : 0.0;
    for (double& slope : values) slope *= -(1.0 - depth + 1e-5);
  } else if (decay == "hypenet") {
    values = alibi_slopes(heads);
    for (double& slope : values) slope = -slope;
  } else if (decay == "minimax") {
    return minimax_slopes(heads, layer, layers).neg().to(at::kDouble);
  } else if (decay == "paper") {
    for (int64_t h = 0; h < heads; ++h)
      values[h] = -(8.0 / h_count) * (1.0 - l / count) * static_cast<double>(h);
  } else {
    check<ConfigError>(decay == "none", "decay = \"", decay,
                       "\": expected alibi, paper, minimax, hypenet or none");
  }
  return at::tensor(values, at::kDouble);
}

}  // namespace longreach
