#include "layers/basic/rope.h"

#include <ATen/ops/_unique2.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "layers/ops/common/check.h"
#include "layers/ops/common/vector_math.h"
#include "layers/ops/rows/rows.h"

namespace longreach {
namespace {

constexpr double kTwoPi = 2.0 * std::numbers::pi;

// YaRN (arXiv 2309.00071): slow features are interpolated, fast ones kept, a ramp between.
std::vector<double> yarn(const std::vector<double>& inverse, const RopeConfig& config, int64_t dim,
                         int64_t original) {
  const auto correction = [&](double rotations) {
    return static_cast<double>(dim) * std::log(static_cast<double>(original) / (rotations * kTwoPi)) /
           (2.0 * std::log(config.theta));
  };
  double low = correction(config.beta_fast), high = correction(config.beta_slow);
  if (config.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dim - 1));
  if (low == high) high += 0.001;
  std::vector<double> result(inverse.size());
  for (size_t i = 0; i < inverse.size(); ++i) {
    const double interpolated = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    result[i] = inverse[i] / config.factor * interpolated + inverse[i] * (1.0 - interpolated);
  }
  return result;
}

// Llama 3.1: wavelengths beyond the old context are stretched, short ones kept, a ramp between.
std::vector<double> llama3(std::vector<double> inverse, const RopeConfig& config, int64_t original) {
  const auto context = static_cast<double>(original);
  for (double& frequency : inverse) {
    const double wavelength = kTwoPi / frequency;
    if (wavelength > context / config.low_freq_factor) {
      frequency /= config.factor;
    } else if (wavelength >= context / config.high_freq_factor) {
      const double smooth = (context / wavelength - config.low_freq_factor) /
                            (config.high_freq_factor - config.low_freq_factor);
      frequency = (1.0 - smooth) * frequency / config.factor + smooth * frequency;
    }
  }
  return inverse;
}

// LongRoPE (arXiv 2402.13753).
void expect_factors(const RopeConfig& config, int64_t head_dim) {
  for (const auto& [key, factors] :
       {std::pair{"short_factor", &config.short_factor}, {"long_factor", &config.long_factor}}) {
    check<ConfigError>(std::ssize(*factors) == head_dim / 2, "rope_scaling.", key, ": has ", factors->size(),
                       " numbers, `longrope` needs one for each of ", head_dim / 2,
                       " feature pairs (head_dim / 2)");
    for (const double factor : *factors)
      check<ConfigError>(factor > 0.0 && std::isfinite(factor), "rope_scaling.", key, ": has the value ",
                         factor, ", expected numbers > 0");
  }
}

// For each position [B, T] the tokens of its document: positions rise within one, and the next begins where
// they do not.
at::Tensor own_lengths(const at::Tensor& positions) {
  const at::Tensor lengths = at::empty_like(positions, at::MemoryFormat::Contiguous);
  const auto* position = positions.const_data_ptr<int64_t>();
  auto* length = lengths.mutable_data_ptr<int64_t>();
  const int64_t tokens = positions.size(1);
  for (int64_t end = positions.numel(); end > 0;) {
    int64_t begin = end - 1;
    while (begin % tokens != 0 && position[begin - 1] < position[begin]) --begin;
    std::fill(length + begin, length + end, position[end - 1] + 1);
    end = begin;
  }
  return lengths;
}

}  // namespace

RotaryEmbedding::RotaryEmbedding(const RopeConfig& config, int64_t head_dim, int64_t max_position_embeddings)
    : config_(config),
      head_dim_(head_dim),
      original_length_(config.original_max_position_embeddings > 0 ? config.original_max_position_embeddings
                                                                   : max_position_embeddings) {
  const std::string& type = config.rope_type;
  check<ConfigError>(head_dim > 0 && head_dim % 2 == 0, "head_dim = ", head_dim,
                     ": the rotary embedding needs an even size");
  const std::vector<std::string> types{"default", "linear", "dynamic", "yarn", "llama3", "longrope"};
  check<ConfigError>(std::find(types.begin(), types.end(), type) != types.end(),
                     "rope_scaling.rope_type = \"", type, "\": expected one of ", join(types),
                     did_you_mean(type, types));
  check<ConfigError>(config.theta > 1.0, "rope_theta = ", config.theta, ": expected a number > 1");
  if (type == "default") return;
  check<ConfigError>(config.factor >= 1.0, "rope_scaling.factor = ", config.factor,
                     ": expected a number >= 1");
  check<ConfigError>(type == "linear" || original_length_ > 0,
                     "rope_scaling.original_max_position_embeddings = ", original_length_, ": `", type,
                     "` needs a positive length");
  check<ConfigError>((type != "dynamic" && type != "yarn") || head_dim > 2, "head_dim = ", head_dim,
                     ": rope_type `", type, "` needs more than 2");
  if (type == "longrope") expect_factors(config, head_dim);
  check<ConfigError>(type != "longrope" || original_length_ > 1,
                     "rope_scaling.original_max_position_embeddings = ", original_length_,
                     ": `longrope` needs more than one, by whose logarithm its factor is divided");
  check<ConfigError>(
      type != "llama3" || (config.low_freq_factor > 0 && config.high_freq_factor > config.low_freq_factor),
      "rope_scaling.high_freq_factor = ", config.high_freq_factor,
      ": expected more than low_freq_factor = ", config.low_freq_factor, ", which must be positive");
  check<ConfigError>(type != "yarn" || (config.beta_slow > 0 && config.beta_fast >= config.beta_slow),
                     "rope_scaling.beta_fast = ", config.beta_fast,
                     ": expected at least beta_slow = ", config.beta_slow, ", which must be positive");
}

std::vector<double> RotaryEmbedding::inverse_frequencies(int64_t length) const {
  const auto dim = static_cast<double>(head_dim_);
  double theta = config_.theta;
  if (config_.rope_type == "dynamic") {
    const double stretch =
        static_cast<double>(std::max(length, original_length_)) / static_cast<double>(original_length_);
    theta *= std::pow(config_.factor * stretch - (config_.factor - 1.0), dim / (dim - 2.0));
  }
  std::vector<double> inverse(static_cast<size_t>(head_dim_ / 2));
  for (size_t i = 0; i < inverse.size(); ++i)
    inverse[i] = std::pow(theta, -2.0 * static_cast<double>(i) / dim);
  if (config_.rope_type == "linear")
    for (double& frequency : inverse) frequency /= config_.factor;
  if (config_.rope_type == "yarn") return yarn(inverse, config_, head_dim_, original_length_);
  if (config_.rope_type == "llama3") return llama3(std::move(inverse), config_, original_length_);
  if (config_.rope_type == "longrope") {
    const auto& factors = length > original_length_ ? config_.long_factor : config_.short_factor;
    for (size_t i = 0; i < inverse.size(); ++i) inverse[i] /= factors[i];
  }
  return inverse;
}

int64_t RotaryEmbedding::length_with_these_angles(int64_t length) const {
  if (config_.rope_type == "dynamic") return std::max(length, original_length_);
  if (config_.rope_type == "longrope") return original_length_ + (length > original_length_ ? 1 : 0);
  return 0;
}

double RotaryEmbedding::attention_factor() const {
  const bool longrope = config_.rope_type == "longrope";
  if (config_.rope_type != "yarn" && !longrope) return 1.0;
  if (config_.attention_factor > 0.0) return config_.attention_factor;
  if (config_.factor <= 1.0) return 1.0;
  return longrope
             ? std::sqrt(1.0 + std::log(config_.factor) / std::log(static_cast<double>(original_length_)))
             : 0.1 * std::log(config_.factor) + 1.0;
}

void RotaryEmbedding::expect_steady_angles(int64_t seen, int64_t tokens) const {
  const bool steady = seen == 0 || length_with_these_angles(seen) == length_with_these_angles(seen + tokens);
  check<ConfigError>(steady, "rope_scaling.rope_type = \"", config_.rope_type,
                     "\": decoding goes on to token ", seen + tokens,
                     ", expected at most original_max_position_embeddings = ", original_length_,
                     config_.rope_type == "dynamic" ? ": beyond it each token changes"
                                                    : ": a sequence that becomes longer changes",
                     " the angles of all keys before it, which are cached; linear, yarn and llama3 can");
}

void RotaryEmbedding::build_table(int64_t rows, at::ScalarType dtype, int64_t length, at::Device device) {
  settle_vector_math();
  const at::Tensor angles =
      at::arange(rows, at::kDouble).unsqueeze(1) * at::tensor(inverse_frequencies(length), at::kDouble);
  cos_ = (angles.cos() * attention_factor()).to(device, dtype);
  sin_ = (angles.sin() * attention_factor()).to(device, dtype);
  table_length_ = length;
}

namespace {

// cos and sin for documents whose lengths have angles of their own: without a table.
Rotation turn_by_length(const RotaryEmbedding& rope, const at::Tensor& positions, const at::Tensor& lengths,
                        at::ScalarType dtype, at::Device device) {
  settle_vector_math();
  const auto [distinct, index, counts] = at::_unique2(lengths, /*sorted=*/true, /*return_inverse=*/true);
  std::vector<at::Tensor> frequencies;
  for (int64_t i = 0; i < distinct.numel(); ++i)
    frequencies.push_back(at::tensor(rope.inverse_frequencies(distinct[i].item<int64_t>()), at::kDouble));
  const at::Tensor own = at::stack(frequencies).index_select(0, index.flatten());
  const at::Tensor angles =
      positions.to(at::kDouble).unsqueeze(-1) * own.view({positions.size(0), positions.size(1), -1});
  const double factor = rope.attention_factor();
  return {(angles.cos() * factor).to(device, dtype), (angles.sin() * factor).to(device, dtype)};
}

}  // namespace

Rotation RotaryEmbedding::at(const at::Tensor& positions, at::ScalarType dtype, int64_t length,
                             std::optional<at::Device> device) {
  expect_dtype(positions, "positions", {at::kLong});
  expect_shape(positions, "positions", {-1, -1});
  const at::ScalarType wanted = dtype == at::kDouble ? at::kDouble : at::kFloat;
  const at::Device where = device.value_or(positions.device());
  const at::Tensor host = positions.to(at::kCPU).contiguous();
  if (last_.rotation.cos.defined() && last_.rotation.cos.scalar_type() == wanted && last_.length == length &&
      last_.rotation.cos.device() == where && last_.positions.equal(host))
    return last_.rotation;
  if (depends_on_length() && length == 0 && host.numel() > 0) {
    at::Tensor lengths = own_lengths(host).clamp_min(original_length_);
    if (config_.rope_type == "longrope") lengths = lengths.clamp_max(original_length_ + 1);
    if (!lengths.eq(lengths.max()).all().item<bool>()) {
      last_ = {host.clone(), turn_by_length(*this, host, lengths, wanted, where), length};
      return last_.rotation;
    }
  }
  const at::Tensor flat = host.reshape({-1});
  const int64_t rows = flat.numel() == 0 ? 1 : flat.max().item<int64_t>() + 1;
  const int64_t tokens = length == 0 ? rows : length;
  const int64_t key = length_with_these_angles(tokens);
  if (!cos_.defined() || cos_.size(0) < rows || cos_.scalar_type() != wanted || table_length_ != key ||
      cos_.device() != where) {
    int64_t grown = 256;  // powers of two: decoding token by token rebuilds log(T) times
    while (grown < rows) grown *= 2;
    build_table(grown, wanted, key, where);
  }
  const at::Tensor index = flat.to(where);
  const auto gather = [&](const at::Tensor& table) {
    return table.index_select(0, index).view({positions.size(0), positions.size(1), head_dim_ / 2});
  };
  // A copy: the caller may write to its positions.
  last_ = {host.clone(), {gather(cos_), gather(sin_)}, length};
  return last_.rotation;
}

at::Tensor rotate(const at::Tensor& x, const Rotation& rotation) {
  return rotate(x, rotation.cos, rotation.sin);
}

}  // namespace longreach
