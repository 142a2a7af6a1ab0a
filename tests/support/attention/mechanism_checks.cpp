// What every mechanism is held to, whatever it computes (tests/support/mechanism_checks.h).
#include "tests/support/mechanism_checks.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>

#include "core/error.h"
#include "layers/attention/attention.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {
namespace {

// Norm weights and thetas leave their neutral values, so that forgetting one shows.
void disturb(Attention& module) {
  const at::NoGradGuard no_grad;
  uint64_t seed = 900;
  for (auto& parameter : module.parameters())
    parameter.add_(normal(parameter.sizes(), seed++, at::kFloat), 0.05);
}

std::shared_ptr<Attention> build(const AttentionConfig& config, LayerSite site,
                                 Implementation implementation) {
  site.implementation = implementation;
  const auto module = make_attention(config, site);
  disturb(*module);
  if (implementation == Implementation::reference) module->to(at::kDouble);
  return module;
}

Batch rows(int64_t batch, int64_t tokens) {
  return {.positions = at::arange(tokens, at::kLong).unsqueeze(0).expand({batch, tokens})};
}

struct Run {
  at::Tensor y, dx;
  std::vector<std::pair<std::string, at::Tensor>> gradients;
  double largest = 1.0;  // of x and dy, at least 1
};

Run run(Attention& module, const at::Tensor& input, const Batch& batch, const at::Tensor& dy) {
  const at::Tensor x = input.detach().clone().requires_grad_(true);
  module.zero_grad();
  Run result;
  result.largest = std::max({1.0, x.detach().abs().max().item<double>(), dy.abs().max().item<double>()});
  result.y = module.forward(x, batch).y;
  result.y.backward(dy.to(result.y.scalar_type()));
  result.dx = x.grad();
  // y may not depend on all of them: a gate that chooses, a document too short for a parameter to matter.
  // Zero then.
  for (const auto& item : module.named_parameters()) {
    const at::Tensor gradient = item.value().grad();
    result.gradients.emplace_back(item.key(), gradient.defined() ? gradient : at::zeros_like(item.value()));
  }
  result.y = result.y.detach();
  return result;
}

double root_mean_square(const at::Tensor& x) {
  return x.to(at::kDouble).square().mean().sqrt().item<double>();
}
double error_of(const at::Tensor& found, const at::Tensor& expected) {
  return root_mean_square(found.to(at::kDouble) - expected.to(at::kDouble));
}

// A gradient can be exactly zero (a window of one key): what is left is then rounding, below 1e-6 times the
// largest input. `allowed`: an error that is granted whatever the tolerance.
void expect_close(const at::Tensor& found, const at::Tensor& expected, double tolerance, double largest,
                  const std::string& what, double allowed = 0.0) {
  ASSERT_TRUE(found.defined()) << what;
  const double size = root_mean_square(expected);
  EXPECT_LE(error_of(found, expected), std::max(allowed, tolerance * size + 1e-6 * largest))
      << what << ", RMS " << size;
}

// plain: another run whose errors, twice, are granted.
void expect_near(const Run& found, const Run& expected, double tolerance, const Run* plain = nullptr) {
  const auto compare = [&](const at::Tensor& x, const at::Tensor& exact, const at::Tensor& other,
                           const std::string& what) {
    expect_close(x, exact, tolerance, expected.largest, what,
                 other.defined() ? 2.0 * error_of(other, exact) : 0.0);
  };
  const auto other = [&](size_t i) { return plain ? plain->gradients[i].second : at::Tensor(); };
  compare(found.y, expected.y, plain ? plain->y : at::Tensor(), "y");
  compare(found.dx, expected.dx, plain ? plain->dx : at::Tensor(), "gradient of x");
  ASSERT_EQ(found.gradients.size(), expected.gradients.size());
  for (size_t i = 0; i < found.gradients.size(); ++i)
    compare(found.gradients[i].second, expected.gradients[i].second, other(i),
            "gradient of " + found.gradients[i].first);
}

// max_tokens: what the state has room for, x.size(1) or more.
at::Tensor decode_in_pieces(Attention& module, const at::Tensor& x, const std::vector<int64_t>& pieces,
                            int64_t max_tokens) {
  const auto state = module.start_decoding(x.size(0), max_tokens);
  EXPECT_THROW(module.decode(x.narrow(1, 0, 0), *state), ShapeError);
  std::vector<at::Tensor> outputs;
  int64_t begin = 0;
  for (size_t i = 0; begin < x.size(1); ++i) {
    const int64_t n = std::min(pieces[i % pieces.size()], x.size(1) - begin);
    outputs.push_back(module.decode(x.narrow(1, begin, n), *state));
    begin += n;
    EXPECT_EQ(state->tokens(), begin);
  }
  return at::cat(outputs, 1);
}

LayerSite dynamic_site(LayerSite site, int64_t original_length) {
  site.rope.rope_type = "dynamic";
  site.rope.factor = 4.0;
  site.rope.original_max_position_embeddings = original_length;
  return site;
}

// `dynamic` depends on the tokens that there are, not on the room for more. Beyond the original length a
// prompt at once is what forward gives; what follows it is refused, or right where there is no rotary
// embedding.
void expect_dynamic_decode(const AttentionConfig& config, const LayerSite& site, int64_t tokens) {
  const at::Tensor x = normal({2, tokens, site.hidden_size}, 2);
  for (const int64_t original : {tokens, tokens / 3}) {
    const auto module = build(config, dynamic_site(site, original), Implementation::reference);
    const at::Tensor y = module->forward(x, rows(2, tokens)).y;
    EXPECT_LE(relative_error(decode_in_pieces(*module, x, {tokens}, 3 * tokens), y), 1e-12) << original;
    try {
      EXPECT_LE(relative_error(decode_in_pieces(*module, x, {tokens / 2, 1}, 3 * tokens), y), 1e-12)
          << original;
    } catch (const ConfigError& error) {
      EXPECT_LT(original, tokens);
      EXPECT_NE(std::string(error.what()).find("original_max_position_embeddings"), std::string::npos)
          << error.what();
    }
  }
}

// Rows without tokens, of no documents and of one that is empty: nothing comes out, and no gradient goes
// back.
void expect_no_tokens(Attention& module, const at::TensorOptions& like, int64_t width) {
  const at::Tensor positions = at::arange(0, at::kLong).unsqueeze(0);
  for (const at::Tensor& bounds : {at::Tensor(), at::tensor({0}, at::kInt), at::tensor({0, 0}, at::kInt)}) {
    SCOPED_TRACE(bounds.defined() ? bounds.numel() : 0);
    const at::Tensor x = at::empty({1, 0, width}, like).requires_grad_(true);
    module.zero_grad();
    const AttentionOutput out = module.forward(x, {.positions = positions, .cu_seqlens = bounds});
    EXPECT_EQ(out.y.sizes(), x.sizes());
    at::Tensor loss = out.y.sum();
    for (const auto& [name, value] : out.losses) loss = loss + value;
    EXPECT_EQ(loss.item<double>(), 0.0);
    loss.backward();
    EXPECT_TRUE(x.grad().defined() && x.grad().sizes() == x.sizes());
    for (const auto& item : module.named_parameters()) {
      const at::Tensor gradient = item.value().grad();
      EXPECT_TRUE(!gradient.defined() || gradient.eq(0).all().item<bool>()) << item.key();
    }
  }
}

void expect_packed(const AttentionConfig& config, const LayerSite& site);

}  // namespace

LayerSite small_site() {
  return {.hidden_size = 24,
          .num_heads = 4,
          .num_kv_heads = 2,
          .head_dim = 8,
          .layer = 1,
          .num_layers = 3,
          .max_position_embeddings = 64,
          .initializer_range = 0.4,
          .seed = 5};
}

LayerSite norm_site() {
  LayerSite site = small_site();
  site.qk_norm = true;
  return site;
}

void expect_causal(const AttentionConfig& config, const LayerSite& site) {
  const at::NoGradGuard no_grad;
  const auto module = build(config, site, Implementation::fused);
  const int64_t tokens = 37;
  const at::Tensor x = normal({2, tokens, site.hidden_size}, 1, at::kFloat);
  const at::Tensor y = module->forward(x, rows(2, tokens)).y;
  for (const int64_t from : {int64_t{1}, int64_t{16}, int64_t{36}}) {
    at::Tensor changed = x.clone();
    changed.narrow(1, from, tokens - from).mul_(-50.0);
    const at::Tensor other = module->forward(changed, rows(2, tokens)).y;
    EXPECT_LE(relative_error(other.narrow(1, 0, from), y.narrow(1, 0, from)), 1e-6)
        << "tokens from " << from << " changed";
    EXPECT_GT(relative_error(other.narrow(1, from, tokens - from), y.narrow(1, from, tokens - from)), 1e-2);
  }
}

void expect_decode_equals_forward(const AttentionConfig& config, const LayerSite& site, int64_t tokens) {
  const at::NoGradGuard no_grad;
  const at::Tensor x = normal({2, tokens, site.hidden_size}, 2);
  for (const auto implementation : {Implementation::reference, Implementation::fused}) {
    const bool exact = implementation == Implementation::reference;
    const auto module = build(config, site, implementation);
    const at::Tensor input = x.to(exact ? at::kDouble : at::kFloat);
    const at::Tensor y = module->forward(input, rows(2, tokens)).y;
    const std::vector<std::vector<int64_t>> splits{{1}, {tokens}, {7, 1, 1, 3, 12}, {tokens - 1, 1}, {19, 2}};
    for (const auto& pieces : splits) {
      const int64_t room = pieces[0] == 1 ? tokens : 2 * tokens + 1;
      EXPECT_LE(relative_error(decode_in_pieces(*module, input, pieces, room), y), exact ? 1e-12 : 3e-6)
          << "first piece " << pieces[0] << (exact ? " reference" : " fused");
    }
  }
  expect_dynamic_decode(config, site, tokens);
}

void expect_packed_equals_separate(const AttentionConfig& config, const LayerSite& site) {
  expect_packed(config, site);
  expect_packed(config, dynamic_site(site, 4));
}

namespace {

void expect_packed(const AttentionConfig& config, const LayerSite& site) {
  const std::vector<int32_t> bounds{0, 5, 5, 22, 23, 41};
  const int64_t tokens = bounds.back();
  const at::Tensor x = normal({1, tokens, site.hidden_size}, 3),
                   dy = normal({1, tokens, site.hidden_size}, 4);
  for (const auto implementation : {Implementation::reference, Implementation::fused}) {
    const bool exact = implementation == Implementation::reference;
    const auto module = build(config, site, implementation);
    const at::Tensor input = x.to(exact ? at::kDouble : at::kFloat);
    std::vector<at::Tensor> positions;
    Run separate;
    std::vector<at::Tensor> outputs, gradients;
    for (size_t i = 0; i + 1 < bounds.size(); ++i) {
      const int64_t begin = bounds[i], n = bounds[i + 1] - bounds[i];
      positions.push_back(at::arange(n, at::kLong));
      if (n == 0) continue;
      const Run document = run(*module, input.narrow(1, begin, n), rows(1, n), dy.narrow(1, begin, n));
      outputs.push_back(document.y);
      gradients.push_back(document.dx);
      separate.largest = std::max(separate.largest, document.largest);
      for (size_t p = 0; p < document.gradients.size(); ++p) {
        if (outputs.size() == 1)
          separate.gradients.emplace_back(document.gradients[p].first, document.gradients[p].second.clone());
        else
          separate.gradients[p].second.add_(document.gradients[p].second);
      }
    }
    separate.y = at::cat(outputs, 1);
    separate.dx = at::cat(gradients, 1);
    const Batch packed{.positions = at::cat(positions).unsqueeze(0),
                       .cu_seqlens = at::tensor(bounds, at::kInt)};
    expect_near(run(*module, input, packed, dy), separate, exact ? 1e-12 : 5e-6);
    expect_no_tokens(*module, input.options(), site.hidden_size);
  }
}

}  // namespace

void expect_fused_equals_reference(const AttentionConfig& config, const LayerSite& site, int64_t tokens) {
  const at::Tensor x = normal({2, tokens, site.hidden_size}, 6),
                   dy = normal({2, tokens, site.hidden_size}, 7);
  const auto reference = build(config, site, Implementation::reference),
             fused = build(config, site, Implementation::fused);
  const Batch batch = rows(2, tokens);
  expect_near(run(*fused, x.to(at::kFloat), batch, dy), run(*reference, x, batch, dy), 5e-6);

  std::vector<at::Tensor> inputs{x.narrow(1, 0, 13)};
  for (const auto& parameter : reference->parameters()) inputs.push_back(parameter);
  const at::Tensor weights = normal({2, 13, site.hidden_size}, 8);
  const Run taped = run(*reference, inputs[0], rows(2, 13), weights);
  std::vector<at::Tensor> originals, found{taped.dx};
  for (const auto& input : inputs) originals.push_back(input.detach().clone());
  for (const auto& [name, gradient] : taped.gradients) found.push_back(gradient);
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const at::Tensor direction = normal(originals[i].sizes(), 40 + i);
    const auto value = [&](double step) {
      const at::Tensor moved = originals[i] + direction * step;
      if (i > 0) inputs[i].copy_(moved);
      const at::Tensor y = reference->forward(i == 0 ? moved : originals[0], rows(2, 13)).y;
      if (i > 0) inputs[i].copy_(originals[i]);
      return (y * weights).sum().item<double>();
    };
    const double slope = (value(1e-5) - value(-1e-5)) / 2e-5,
                 expected = (found[i] * direction).sum().item<double>();
    EXPECT_NEAR(expected, slope, 1e-6 * std::max(1.0, std::abs(slope)))
        << "central differences of " << (i == 0 ? "x" : taped.gradients[i - 1].first);
  }
}

void expect_bfloat16_close(const AttentionConfig& config, const LayerSite& site) {
  const int64_t tokens = 45;
  const at::Tensor x = normal({2, tokens, site.hidden_size}, 6),
                   dy = normal({2, tokens, site.hidden_size}, 7);
  const auto reference = build(config, site, Implementation::reference),
             fused = build(config, site, Implementation::fused);
  const Run expected = run(*reference, x, rows(2, tokens), dy);
  reference->to(at::kFloat);
  const at::Tensor rounded = x.to(at::kBFloat16);
  const Run plain = run(*reference, rounded, rows(2, tokens), dy),
            found = run(*fused, rounded, rows(2, tokens), dy);
  EXPECT_EQ(found.y.scalar_type(), at::kBFloat16);
  for (const auto& [name, gradient] : found.gradients) EXPECT_EQ(gradient.scalar_type(), at::kFloat) << name;
  // Half a unit of bfloat16's last place, the rounding of a result, beside what the formula loses in it.
  expect_near(found, expected, 0x1p-9, &plain);
}

int64_t decode_bytes(const AttentionConfig& config, const LayerSite& site, int64_t tokens) {
  const auto module = build(config, site, Implementation::fused);
  const auto state = module->start_decoding(1, 1 << 20);
  const at::Tensor x = normal({1, 1, site.hidden_size}, 9, at::kFloat);
  for (int64_t i = 0; i < tokens; ++i) module->decode(x, *state);
  return state->bytes();
}

std::string overflow_message(const AttentionConfig& config, const LayerSite& site) {
  const auto module = build(config, site, Implementation::fused);
  const auto state = module->start_decoding(1, 4);
  const at::Tensor x = normal({1, 3, site.hidden_size}, 9, at::kFloat);
  module->decode(x, *state);
  try {
    module->decode(x, *state);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

}  // namespace longreach::test
